// Reads a stream back with Streamr's SDK, which verifies every message: last, from and range of each partition.
//
//     node check.mjs CONFIG.json      fields: see client.mjs, and "stream", "partitions", "fromMs", "toMs", "last"
//
// One line of JSON per question on standard output: how many messages came, their identities, and what went wrong.

import { config, connect, tell } from './client.mjs'

const client = await connect()
for (let partition = 0; partition < config.partitions; partition += 1) {
    await ask(partition, 'last', { last: config.last })
    await ask(partition, 'from', { from: { timestamp: config.fromMs } })
    await ask(partition, 'range', { from: { timestamp: config.fromMs }, to: { timestamp: config.toMs } })
}
await client.destroy()
process.exit(0)

async function ask(partition, kind, options) {
    const messages = []
    let error = ''
    try {
        for await (const { timestamp, sequenceNumber, publisherId, msgChainId } of await client.resend(
            { id: config.stream, partition }, options
        )) messages.push([timestamp, sequenceNumber, publisherId, msgChainId])
    } catch (problem) {
        error = String(problem.message ?? problem).slice(0, 300)
    }
    tell(kind, { partition, messages, error })
}
