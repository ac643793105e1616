// Loaded into Node before anything else (NODE_OPTIONS=--require): whoever asks for sqlite3 gets the module that
// SQLITE3_MODULE names.

const Module = require('node:module')

const resolve = Module._resolveFilename
Module._resolveFilename = function (name, ...rest) {
    return resolve.call(this, name === 'sqlite3' ? process.env.SQLITE3_MODULE : name, ...rest)
}
