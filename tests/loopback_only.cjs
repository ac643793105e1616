// Loaded into Node before anything else (NODE_OPTIONS=--require): writes down each name that is looked up and each
// address that is asked beyond loopback, and lets none of it happen. LOOPBACK_LOG names the file; "started" says it was there.

const dns = require('node:dns')
const dgram = require('node:dgram')
const fs = require('node:fs')
const net = require('node:net')

const note = (line) => fs.appendFileSync(process.env.LOOPBACK_LOG, `${line}\n`)
const isLoopback = (host) => host === undefined || host === 'localhost' || host === '::1' || /^127\./.test(host)
note('started')

function refuse(what, host) {
    note(`${what} ${host}`)
    return Object.assign(new Error(`${what} ${host}: only loopback here`), { code: 'ENOTFOUND' })
}

const connect = net.Socket.prototype.connect
net.Socket.prototype.connect = function (...words) {
    const [options] = Array.isArray(words[0]) ? words[0] : words
    const host = typeof options === 'object' ? options.host : typeof words[1] === 'string' ? words[1] : undefined
    const path = typeof options === 'object' ? options.path : typeof options === 'string' ? options : undefined
    if (path === undefined && !isLoopback(host)) {
        this.destroy(refuse('connect', host))
        return this
    }
    return connect.apply(this, words)
}

for (const owner of [dns, dns.promises]) {
    for (const name of ['lookup', 'resolve', 'resolve4', 'resolve6']) {
        const original = owner[name]
        owner[name] = function (host, ...rest) {
            if (isLoopback(host)) return original.call(this, host, ...rest)
            const error = refuse('lookup', host)
            const callback = rest.at(-1)
            if (typeof callback === 'function') return void process.nextTick(callback, error)
            return Promise.reject(error)
        }
    }
}

const send = dgram.Socket.prototype.send
dgram.Socket.prototype.send = function (...words) {
    const host = words.find((word, at) => at > 0 && typeof word === 'string')
    if (!isLoopback(host)) throw refuse('send', host)
    return send.apply(this, words)
}
