// A publisher as anybody writes one with Streamr's SDK: creates a stream, has it stored, publishes, ends.
//
//     node publish.mjs CONFIG.json      fields: see client.mjs, and below
//
// "path", "partitions": the stream, below the account of "key"; "storageNode": who is to store it; "storeManager", "token",
// "stake": the Log Store's contracts, and what the stream's balance is to be; "startMs", "endMs", "everyMs", "count": when
// and how much is published. Each step is a line of JSON on standard output; of each message its bytes, in base64.

import { config, connect, require, tell } from './client.mjs'

const { convertStreamMessageToBytes, StreamPermission } = require('@streamr/sdk')
const { Contract, JsonRpcProvider, Wallet } = require('ethers')

const client = await connect()
const stream = await client.createStream({ id: config.path, partitions: config.partitions })
await stream.grantPermissions({ public: true, permissions: [StreamPermission.SUBSCRIBE] })
tell('created', { stream: stream.id })

const wallet = new Wallet(config.key, new JsonRpcProvider(config.rpcUrl, undefined, { pollingInterval: 250 }))
const token = new Contract(config.token, ['function approve(address,uint256)'], wallet)
const store = new Contract(config.storeManager, ['function stake(string,uint256)'], wallet)
await (await token.approve(config.storeManager, config.stake)).wait()
await (await store.stake(stream.id, config.stake)).wait()
tell('staked', { amount: config.stake })

await stream.addToStorageNode(config.storageNode, { wait: true, timeout: 60_000 })
tell('stored', { node: config.storageNode })

const pauseMs = config.everyMs
let published = 0
for (let number = 0; number < config.count; number += 1) {
    const dueMs = config.startMs + number * pauseMs
    if (Date.now() < dueMs) await new Promise((resolve) => setTimeout(resolve, dueMs - Date.now()))
    if (Date.now() >= config.endMs) break
    const message = await client.publish(
        { id: stream.id, partition: number % config.partitions },
        { number, text: 'grüße', value: number / 7 }
    )
    published += 1
    tell('published', { data: Buffer.from(convertStreamMessageToBytes(message.streamMessage)).toString('base64') })
}
await new Promise((resolve) => setTimeout(resolve, 1000)) // what is under way leaves
tell('done', { published })
await client.destroy()
process.exit(0)
