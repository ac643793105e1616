// The SDK loads this when it starts and opens a database when it meets an encrypted message; then this says so.
class Database {
    constructor() {
        throw new Error('no key store here: sqlite3 is a stub')
    }
}
module.exports = { Database, OPEN_READWRITE: 2, OPEN_CREATE: 4 }
