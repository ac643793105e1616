// Stands for the native module, as far as the SDK asks it, which keeps the keys of private streams here: SQLite itself,
// compiled to WebAssembly, so nothing is fetched or compiled where the SDK is installed. Calls are done at once, and
// call back afterwards; one process at a time has a file.

class Database {
    constructor(filename, ...more) {
        call(more.pop(), this, () => {
            const { Database } = require('node-sqlite3-wasm') // here, since most programs never open one
            this.open = new Database(filename)
        })
    }

    configure() {}

    run(sql, ...more) {
        return this.ask(more, (values) => { this.open.run(sql, values) })
    }

    get(sql, ...more) {
        return this.ask(more, (values) => this.open.get(sql, values) ?? undefined)
    }

    all(sql, ...more) {
        return this.ask(more, (values) => this.open.all(sql, values))
    }

    exec(sql, done) {
        // One of the SDK's migrations has a text in double quotes, which this SQLite takes for the name of a column.
        return this.ask([done], () => { this.open.exec(sql.replaceAll('"LEGACY::"', "'LEGACY::'")) })
    }

    close(done) {
        return this.ask([done], () => { this.open.close() })
    }

    ask(more, act) {
        const done = more.pop()
        const values = more.length === 1 && typeof more[0] === 'object' ? more[0] : more
        call(done, this, () => act(values))
        return this
    }
}

function call(done, database, act) {
    let error = null
    let result
    try {
        result = act()
    } catch (problem) {
        error = Object.assign(new Error(problem.message), { code: 'SQLITE_ERROR' })
    }
    if (error !== null && done === undefined) throw error // nobody else would hear of it
    setImmediate(() => done?.call(database, error, result))
}

module.exports = { Database, OPEN_READWRITE: 2, OPEN_CREATE: 4 }
