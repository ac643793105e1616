// A client of Streamr's own SDK, set up for a network of its own: what anybody has to configure who does the same.

import { createRequire } from 'node:module'
import fs from 'node:fs'
import net from 'node:net'

export const config = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
export const require = createRequire(`${config.packages}/`)

// The SDK's websocket server listens on every address of the machine, whatever host it is told.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, host, ...rest) {
    return listen.call(this, port, host === '0.0.0.0' ? '127.0.0.1' : host, ...rest)
}

const peer = ({ id, host, port }) => ({ nodeId: id, type: 0, websocket: { host, port, tls: false } })

const entryPoints = config.entryPoints.map((one) => ({ ...peer(one), type: 'nodejs' }))

// A client whose node has joined the network, at the first of our places where that goes. The SDK asks each entry point
// once where we are reached and gives it a second to answer; a busy machine needs more, and a place is not given back.
export async function connect(key = config.key, places = config.peers) {
    let failure
    for (const own of places) {
        const client = createClient(own, key)
        try {
            await client.connect()
            return client
        } catch (error) {
            failure = error
            console.error(`not connected at port ${own.port}: ${error.message}`)
        }
    }
    throw failure
}

// A client whose node has not joined: enough for whoever only asks storage nodes. "own" is where it would listen.
export function createClient(own, key = config.key) {
    const { StreamrClient } = require('@streamr/sdk')
    return new StreamrClient({
        environment: 'dev2',
        auth: { privateKey: key },
        logLevel: 'warn',
        metrics: false,
        contracts: {
            ethereumNetwork: { chainId: config.chainId },
            rpcs: [{ url: config.rpcUrl }],
            rpcQuorum: 1,
            pollInterval: 500,
            theGraphUrl: config.theGraphUrl,
            streamRegistryChainAddress: config.streamRegistry,
            streamStorageRegistryChainAddress: config.storageRegistry,
            storageNodeRegistryChainAddress: config.nodeRegistry
        },
        network: {
            controlLayer: {
                entryPoints: Array(3).fill(entryPoints).flat(),
                entryPointDiscovery: { enabled: false },
                iceServers: [],
                webrtcAllowPrivateAddresses: true,
                websocketServerEnableTls: false,
                peerDescriptor: { ...peer(own), type: 'nodejs' }
            }
        }
    })
}

// The SDK ends the process on what nobody catches, in words that may get lost.
process.prependListener('uncaughtException', fail)
process.prependListener('unhandledRejection', fail)

function fail(error) {
    fs.writeSync(2, `${error?.stack ?? error}\n`)
    process.exit(1)
}

// One step's result, as a line of JSON on standard output, and how much memory it took so far.
export function tell(step, facts) {
    process.stdout.write(`${JSON.stringify({ step, rssMb: Math.round(process.memoryUsage().rss / 1e6), ...facts })}\n`)
}
