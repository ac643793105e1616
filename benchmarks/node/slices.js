// What the Node validator before this one does with a page: parse, check signatures as Streamr's client does (native
// secp256k1, sha3), cache, sort, one JSON text, gzip, SHA-256. Reads "NUMBER check|plain|lean" per line, answers
// "CPU microseconds, messages kept". Lean is plain with every field stored once, which that validator did not do.
'use strict'
const fs = require('fs')
const path = require('path')
const zlib = require('zlib')
const crypto = require('crypto')
const readline = require('readline')
const secp256k1 = require('secp256k1')
const { Keccak } = require('sha3')

const folder = process.argv[2]
const keccak = (data) => new Keccak(256).update(data).digest()

function isSigned(m) {
    const [stream, partition, timestamp, sequence, publisher, chain] = m[1]
    const prev = m[2] === null ? '' : `${m[2][0]}${m[2][1]}`
    const payload = Buffer.from(`${stream}${partition}${timestamp}${sequence}${publisher.toLowerCase()}${chain}${prev}${m[7]}${m[8] ?? ''}`)
    const hash = keccak(Buffer.concat([Buffer.from(`\u0019Ethereum Signed Message:\n${payload.length}`), payload]))
    const signature = Buffer.from(m[10].slice(2), 'hex')
    const key = secp256k1.ecdsaRecover(signature.subarray(0, 64), signature[64] - 27, hash, false)
    return '0x' + keccak(Buffer.from(key.subarray(1))).subarray(12).toString('hex') === publisher.toLowerCase()
}

// The item that the Node validator stores and uploads: ids, signature, and the client's own object, which holds them again
// with the content as text and parsed.
function toItem(m) {
    const [streamId, streamPartition, timestamp, sequenceNumber, publisherId, msgChainId] = m[1]
    const content = JSON.parse(m[7])
    const ids = { streamId, streamPartition, timestamp, sequenceNumber, signature: m[10], publisherId, msgChainId }
    const streamMessage = {
        messageId: { streamId, streamPartition, timestamp, sequenceNumber, publisherId, msgChainId },
        prevMsgRef: m[2] === null ? null : { timestamp: m[2][0], sequenceNumber: m[2][1] },
        messageType: m[3], contentType: m[4], encryptionType: m[5], groupKeyId: m[6], newGroupKey: m[8],
        signature: m[10], parsedContent: content, serializedContent: m[7]
    }
    return { content, metadata: { ...ids, streamMessage } }
}

function toLeanItem(m) {
    const [streamId, streamPartition, timestamp, sequenceNumber, publisherId, msgChainId] = m[1]
    return {
        metadata: {
            id: { streamId, streamPartition, timestamp, sequenceNumber, publisherId, msgChainId },
            prevMsgRef: m[2] === null ? null : { timestamp: m[2][0], sequenceNumber: m[2][1] },
            messageType: m[3], contentType: m[4], encryptionType: m[5], groupKeyId: m[6], newGroupKey: m[8],
            signatureType: m[9], signature: m[10]
        },
        content: JSON.parse(m[7])
    }
}

// Items go through the pool's cache (one text per minute of data), are sorted by id, and become one bundle.
function run(page, check, toItem) {
    const minutes = new Map()
    const known = new Set()
    for (const line of page.toString('utf8').split('\n')) {
        const message = JSON.parse(line)
        const [stream, partition, timestamp, sequence, publisher] = message[1]
        const id = `${stream}/${partition}/${String(timestamp).padStart(15, '0')}/${String(sequence).padStart(10, '0')}/${publisher}`
        if (known.has(id) || (check && !isSigned(message))) continue
        known.add(id)
        const minute = Math.floor(timestamp / 60000)
        if (!minutes.has(minute)) minutes.set(minute, [])
        minutes.get(minute).push([id, toItem(message)])
    }
    const cache = new Map()
    for (const [minute, items] of minutes) {
        items.sort((a, b) => a[0].localeCompare(b[0]))
        cache.set(minute, JSON.stringify(items.map((item) => item[1])))
    }
    const bundle = [...cache.keys()].sort((a, b) => a - b).map((key) => ({ key, value: JSON.parse(cache.get(key)) }))
    const text = Buffer.from(JSON.stringify(bundle))
    const packed = zlib.gzipSync(text)
    crypto.createHash('sha256').update(packed).digest()
    fs.writeFileSync(path.join(folder, 'node.gz'), packed)
    return known.size
}

const pages = new Map()
readline.createInterface({ input: process.stdin }).on('line', (request) => {
    const [number, mode] = request.split(' ')
    if (!pages.has(number)) pages.set(number, fs.readFileSync(path.join(folder, `page-${number}`)))
    const began = process.cpuUsage()
    const kept = run(pages.get(number), mode === 'check', mode === 'lean' ? toLeanItem : toItem)
    const { user, system } = process.cpuUsage(began)
    process.stdout.write(`${user + system} ${kept}\n`)
})
