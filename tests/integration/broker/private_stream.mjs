// A private stream of Streamr's own SDK, from one client to another: only who may subscribe gets the keys, from the
// publisher, over the network; the storage node gets neither keys nor clear text.
//
//     node private_stream.mjs CONFIG.json      fields: those of publish.mjs without times, and "friendKey": the reader's
//
// Each step is a line of JSON on standard output: of each message its bytes, in base64, and of each question what came.

import { config, connect, require, tell } from '../../../validator/devnet/sdk/client.mjs'

const { convertStreamMessageToBytes, StreamPermission } = require('@streamr/sdk')
const { Contract, JsonRpcProvider, Wallet, computeAddress } = require('ethers')

const half = config.peers.length / 2
const publisher = await connect(config.key, config.peers.slice(0, half))
const stream = await publisher.createStream({ id: config.path })
await stream.grantPermissions({ userId: computeAddress(config.friendKey), permissions: [StreamPermission.SUBSCRIBE] })
tell('created', { stream: stream.id, keysIn: require.resolve('sqlite3') })

const wallet = new Wallet(config.key, new JsonRpcProvider(config.rpcUrl, undefined, { pollingInterval: 250 }))
const token = new Contract(config.token, ['function approve(address,uint256)'], wallet)
const store = new Contract(config.storeManager, ['function stake(string,uint256)'], wallet)
await (await token.approve(config.storeManager, config.stake)).wait()
await (await store.stake(stream.id, config.stake)).wait()
await stream.addToStorageNode(config.storageNode, { wait: true, timeout: 60_000 })
tell('stored', {})

const times = []
for (let number = 0; number < config.count; number += 1) {
    const message = await publisher.publish(stream, { number, secret: 'grüße' })
    times.push(message.timestamp)
    tell('published', { data: Buffer.from(convertStreamMessageToBytes(message.streamMessage)).toString('base64') })
    while (Date.now() === message.timestamp) await new Promise((resolve) => setTimeout(resolve, 1))
}

const friend = await connect(config.friendKey, config.peers.slice(half))
while ((await ask({ last: config.count })).length < config.count) await new Promise((resolve) => setTimeout(resolve, 200))
tell('last', { contents: await ask({ last: 2 }) })
tell('from', { contents: await ask({ from: { timestamp: times[2] } }) })
tell('range', { contents: await ask({ from: { timestamp: times[1] }, to: { timestamp: times[3] } }) })
await friend.destroy()
await publisher.destroy()
process.exit(0)

// While messages are under way to the storage node, fewer come than are asked for.
async function ask(options) {
    const contents = []
    for await (const message of await friend.resend(stream.id, options)) contents.push(message.content)
    return contents
}
