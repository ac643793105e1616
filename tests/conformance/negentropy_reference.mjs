// One side of a session played by the protocol's own JavaScript: the lines of tests/conformance/negentropy.py, the same answers.
// Argument: the path of the module that exports Negentropy and NegentropyStorageVector. Environment: FRAMESIZELIMIT.
import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const { Negentropy, NegentropyStorageVector } = await import(pathToFileURL(process.argv[2]).href)
const records = new NegentropyStorageVector()
let side
let leads = false

async function obey(line) {
    const [command, ...fields] = line.split(',')
    if (command === 'item') {
        records.insert(Number(fields[0]), fields[1])
    } else if (command === 'seal') {
        records.seal()
        side = new Negentropy(records, Number(process.env.FRAMESIZELIMIT ?? 0))
    } else if (command === 'initiate') {
        leads = true
        return [`msg,${await side.initiate()}`]
    } else if (command === 'msg') {
        const [next, have, need] = await side.reconcile(fields[0])
        const found = leads ? [...have.map((id) => `have,${id}`), ...need.map((id) => `need,${id}`)] : []
        return [...found, next === null ? 'done' : `msg,${next}`]
    } else {
        throw new Error(`unknown command ${command}`)
    }
    return []
}

for await (const line of readline.createInterface({ input: process.stdin })) {
    const replies = await obey(line)
    if (replies.length) process.stdout.write(replies.join('\n') + '\n')
}
