// Nodes of the Streamr network in one process; each hands over messages, and takes some, on a Unix socket of its own.
//
//     node bridge.mjs CONFIG.json      where the packages of package.json lie: "packages" of the config
//
// {"packages": folder, "bufferBytes": n,
//  "entryPoints": [{"id": 40 hex digits, "host", "port", "tls": false}],
//  "nodes": [{"id", "host", "port", "tls": false, "certificate": {"cert", "key"} or null, "socket": path or null}]}
//
// The frames are those of frames.py. A node without a socket is an entry point only. There is no key here, no chain and
// no check of a signature: bytes go through. The process ends when its standard input does, if that is a pipe, and with
// status 1 when something goes wrong that it does not understand: whoever started it starts it again.

import { createRequire } from 'node:module'
import fs from 'node:fs'
import net from 'node:net'
import { Parts } from './parts.mjs'

const KIND = { JOIN: 1, LEAVE: 2, PUBLISH: 3, INFO: 4, MESSAGE: 17, DROPPED: 18, ERROR: 19, STATE: 20 }
const MAX_MESSAGE_BYTES = 1 << 20
const MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + (64 << 10)
const MAX_PARTITION = 99
const ENTRY_POINT_TRIES = 5
// So long the first join waits for a first connection: parts joined before there is one stay lonely for minutes.
const CONNECTED_WITHIN_MS = 25_000
const MESSAGE_OVERHEAD_BYTES = 256 // what a buffered message costs beside its bytes

const config = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const require = createRequire(`${config.packages}/`)
process.env.LOG_LEVEL ??= 'warn'
listenOnLoopbackOnly()
const { NetworkNode, NetworkStack, StreamMessage } = require('@streamr/trackerless-network')

if (isPipe(0)) process.stdin.resume().on('end', () => process.exit(0)).on('error', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
process.on('unhandledRejection', (error) => console.error(`unhandled: ${error?.stack ?? error}`))

for (const node of config.nodes) {
    const running = await startNode(node)
    if (node.socket !== null) await serve(node.socket, running)
}
console.log(`ready: ${config.nodes.length} nodes, ${Math.round(process.memoryUsage().rss / 1e6)} MB`)

function isPipe(descriptor) {
    const status = fs.fstatSync(descriptor)
    return status.isFIFO() || status.isSocket()
}

// The library's server listens on every address of the machine, whatever host it is told. Where all nodes are on
// loopback, it must not.
function listenOnLoopbackOnly() {
    if (!config.nodes.every(({ host }) => host.startsWith('127.'))) return
    const listen = net.Server.prototype.listen
    net.Server.prototype.listen = function (port, host, ...rest) {
        return listen.call(this, port, host === '0.0.0.0' ? '127.0.0.1' : host, ...rest)
    }
}

async function startNode(own) {
    const certificate = own.certificate ?? undefined
    const describe = (peer) => ({
        nodeId: new Uint8Array(Buffer.from(peer.id, 'hex')),
        type: 0,
        websocket: { host: peer.host, port: peer.port, tls: peer.tls }
    })
    // The library asks each entry point once where we are reached, and gives it a second: a busy machine needs more.
    const entryPoints = Array(ENTRY_POINT_TRIES).fill(config.entryPoints.map(describe)).flat()
    const stack = new NetworkStack({
        layer0: {
            entryPoints,
            peerDescriptor: describe(own), // without one, the library asks the world where it is
            websocketServerEnableTls: false,
            tlsCertificate: certificate && { certFileName: certificate.cert, privateKeyFileName: certificate.key },
            iceServers: [],
            webrtcAllowPrivateAddresses: true,
            maxMessageSize: MAX_MESSAGE_BYTES,
            networkConnectivityTimeout: CONNECTED_WITHIN_MS // its own is 10 s
        },
        networkNode: { acceptProxyConnections: false }
    })
    const node = new NetworkNode(stack)
    const parts = await Parts.of(node, stack)
    await node.start(false) // entry points join by themselves, others with their first part
    return { node, parts }
}

// --- the socket ---------------------------------------------------------------------------------

async function serve(path, { node, parts }) {
    const clients = new Set()
    node.addMessageListener((message) => {
        const { streamId, streamPartition } = message.messageId
        const id = `${streamId}#${streamPartition}`
        if (!parts.has(id)) return
        const head = writePart(streamId, streamPartition)
        const data = StreamMessage.toBinary(message)
        for (const client of clients) if (client.parts.has(id)) client.deliver(head, data)
    })
    fs.rmSync(path, { force: true })
    const server = net.createServer((socket) => {
        const client = new Client(socket, node, parts)
        clients.add(client)
        socket.on('close', () => {
            clients.delete(client)
            client.end()
        })
    })
    await new Promise((resolve, reject) => server.once('error', reject).listen(path, resolve))
}

class Client {
    constructor(socket, node, joined) {
        this.socket = socket
        this.node = node
        this.joined = joined // by the node, for all clients
        this.parts = new Set()
        this.dropped = 0
        this.told = 0
        this.waiting = 0 // messages that the socket has not taken yet
        this.rest = []
        this.restBytes = 0
        this.work = Promise.resolve() // requests are done in their order
        socket.on('data', (data) => this.feed(data))
        socket.on('error', () => socket.destroy())
        socket.on('drain', () => {
            this.waiting = 0
            this.tellDropped()
        })
    }

    // Cut what came into frames, holding one unfinished frame at most.
    feed(data) {
        this.rest.push(data)
        this.restBytes += data.length
        if (this.needed !== undefined && this.restBytes < this.needed) return
        let all = this.rest.length === 1 ? data : Buffer.concat(this.rest)
        this.needed = undefined
        while (all.length >= 4) {
            const length = all.readUInt32BE(0)
            if (length === 0 || length > MAX_FRAME_BYTES) return this.refuse(`a frame of ${length} bytes`)
            if (all.length < 4 + length) {
                this.needed = 4 + length
                break
            }
            const kind = all[4]
            const body = all.subarray(5, 4 + length)
            this.work = this.work.then(() => this.obey(kind, body)).catch((error) => this.refuse(error.message))
            all = all.subarray(4 + length)
        }
        this.rest = all.length ? [all] : []
        this.restBytes = all.length
        // Work that waits for the network must not grow: read on when it is done.
        this.socket.pause()
        this.work.then(() => this.socket.resume())
    }

    async obey(kind, body) {
        if (this.socket.destroyed) return
        if (kind === KIND.PUBLISH) return this.publish(body)
        const refused = []
        if (kind === KIND.JOIN || kind === KIND.LEAVE) {
            for (const part of readParts(body)) {
                try {
                    await (kind === KIND.JOIN ? this.join(part.id) : this.leave(part.id))
                } catch (error) {
                    refused.push({ stream: part.stream, partition: part.partition, reason: String(error.message).slice(0, 200) })
                }
            }
        } else if (kind !== KIND.INFO) {
            throw new Error(`kind ${kind} is none`)
        }
        this.send(KIND.STATE, Buffer.from(JSON.stringify(this.state(refused))))
    }

    async join(id) {
        if (this.parts.has(id)) return
        await this.joined.join(id)
        this.parts.add(id)
    }

    async leave(id) {
        if (this.parts.delete(id)) await this.joined.leave(id)
    }

    async publish(body) {
        const end = readPart(body, 0).end
        let message
        try {
            message = StreamMessage.fromBinary(body.subarray(end))
        } catch (error) {
            return this.complain(`publish: no StreamMessage: ${error.message}`)
        }
        if (message.messageId === undefined || message.body.oneofKind === undefined) {
            return this.complain('publish: a message without an id or a body')
        }
        this.joined.expect(`${message.messageId.streamId}#${message.messageId.streamPartition}`)
        try {
            await this.node.broadcast(message)
        } catch (error) {
            this.complain(`publish: ${error.message}`)
        }
    }

    deliver(head, data) {
        const size = 5 + head.length + data.length
        const held = this.socket.writableLength + this.waiting * MESSAGE_OVERHEAD_BYTES
        if (held + size > config.bufferBytes) {
            this.dropped += 1
            return
        }
        if (this.send(KIND.MESSAGE, head, data)) this.waiting = 0
        else this.waiting += 1
    }

    tellDropped() {
        if (this.dropped === this.told || this.socket.destroyed) return
        this.told = this.dropped
        const count = Buffer.alloc(8)
        count.writeBigUInt64BE(BigInt(this.dropped))
        this.send(KIND.DROPPED, count)
    }

    complain(text) {
        if (!this.socket.destroyed) this.send(KIND.ERROR, Buffer.from(text.slice(0, 500)))
    }

    refuse(text) {
        if (this.socket.destroyed) return
        this.complain(text)
        this.socket.destroySoon()
    }

    send(kind, ...pieces) {
        const length = 1 + pieces.reduce((sum, piece) => sum + piece.length, 0)
        const head = Buffer.allocUnsafe(5)
        head.writeUInt32BE(length, 0)
        head[4] = kind
        return this.socket.write(Buffer.concat([head, ...pieces]))
    }

    state(refused) {
        let lonely = 0
        let waiting = 0
        for (const id of this.parts) {
            if (this.joined.isWaiting(id)) waiting += 1
            if (this.node.getNeighbors(id).length === 0) lonely += 1
        }
        const counts = { parts: this.parts.size, waiting, lonely, overhearing: this.joined.countOverhearing() }
        return { node: this.node.getNodeId(), ...counts, buffered: this.socket.writableLength, refused }
    }

    end() {
        this.work = this.work.then(async () => {
            for (const id of [...this.parts]) await this.leave(id)
        }).catch((error) => console.error(`leaving: ${error.message}`))
    }
}

// --- parts --------------------------------------------------------------------------------------

function writePart(stream, partition) {
    const name = Buffer.from(stream)
    const part = Buffer.allocUnsafe(3 + name.length)
    part.writeUInt16BE(name.length, 0)
    name.copy(part, 2)
    part[2 + name.length] = partition
    return part
}

function readPart(body, start) {
    if (start + 2 > body.length) throw new Error('a part is cut short')
    const end = start + 2 + body.readUInt16BE(start)
    if (end >= body.length || end === start + 2) throw new Error('a part is cut short')
    if (body[end] > MAX_PARTITION) throw new Error(`partition ${body[end]}`)
    const stream = body.toString('utf8', start + 2, end)
    return { stream, partition: body[end], id: `${stream}#${body[end]}`, end: end + 1 }
}

function readParts(body) {
    const parts = []
    for (let at = 0; at < body.length; ) {
        const part = readPart(body, at)
        parts.push(part)
        at = part.end
    }
    return parts
}
