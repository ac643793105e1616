// The published client, unchanged, on a chain that it does not know; for programs that read their settings from stdin.
//
// Settings: url, chainId, key (of the account that acts), streamRegistry, addresses (as @logsn/contracts names them).

import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export const require = createRequire(join(process.cwd(), 'package.json'))
export const settings = JSON.parse(readFileSync(0, 'utf8'))
const { addresses } = settings

// Which contracts a chain has stands in a file of the package; this chain is not in it. The client logs to stdout.
require('@logsn/contracts/address.json')[settings.chainId] = addresses
console.log = console.info = console.debug = console.error

const LogStoreClient = require('@logsn/client')
const chain = { name: 'development', chainId: settings.chainId, rpcs: [{ url: settings.url }] }
export const client = new LogStoreClient({
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
