// What a consumer with the published client reads: node query_of_today.mjs < settings.json
//
// Settings: url, chainId, key (of the account that asks), streamId, addresses (as @logsn/contracts names them), last,
// from and to (times in ms). Prints one JSON object: for each kind of query the messages that the client handed out, which
// it has verified, as [time, number, publisher, content].

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const require = createRequire(join(process.cwd(), 'package.json'))
const settings = JSON.parse(readFileSync(0, 'utf8'))
const { addresses, streamId, last, from, to } = settings

// Which contracts a chain has stands in a file of the package; this chain is not in it. The client logs to stdout.
require('@logsn/contracts/address.json')[settings.chainId] = addresses
console.log = console.info = console.debug = console.error

const LogStoreClient = require('@logsn/client')

const chain = { name: 'development', chainId: settings.chainId, rpcs: [{ url: settings.url }] }
const client = new LogStoreClient({
    auth: { privateKey: settings.key },
    metrics: false,
    logLevel: 'error',
    contracts: {
        streamRegistryChainAddress: settings.streamRegistry,
        streamStorageRegistryChainAddress: settings.streamRegistry,
        mainChainRPCs: chain,
        streamRegistryChainRPCs: chain,
        logStoreNodeManagerChainAddress: addresses.nodeManagerAddress,
        logStoreStoreManagerChainAddress: addresses.storeManagerAddress,
        logStoreTokenManagerChainAddress: addresses.tokenManagerAddress,
        logStoreQueryManagerChainAddress: addresses.queryManagerAddress,
    },
})

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
