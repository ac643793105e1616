// What a consumer with the published client reads: node query_of_today.mjs < settings.json
//
// Settings: url, chainId, key (of the account that asks), streamId, addresses (as @logsn/contracts names them), last,
// from and to (times in ms). Prints one JSON object: for each kind of query the messages that the client handed out, which
// it has verified, as [time, number, publisher, content].

import { client, settings } from './published_client.mjs'

const { streamId, last, from, to } = settings

async function read(options) {
    const found = []
    for await (const message of await client.query(streamId, options)) {
        const { timestamp, sequenceNumber, publisherId } = message.metadata.id
        found.push([timestamp, sequenceNumber, publisherId, message.content])
    }
    return found
}

const answers = {
    last: await read({ last }),
    from: await read({ from: { timestamp: from } }),
    range: await read({ from: { timestamp: from }, to: { timestamp: to } }),
}
process.stdout.write(JSON.stringify(answers), () => process.exit(0))
