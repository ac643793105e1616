// What users of the published clients do, by those clients: node clients_of_today.mjs < settings.json
//
// Settings: url, chainId, key (of the account that acts), streamId, node, addresses (as @logsn/contracts names them).
// Prints one JSON object of what the clients answered, integers as decimal strings.

import { client, require, settings } from './published_client.mjs'

const { addresses, streamId, node } = settings
const contracts = require('@logsn/contracts')
const { Wallet, providers } = require('ethers')

const provider = new providers.StaticJsonRpcProvider(settings.url)
provider.pollingInterval = 50
const wallet = new Wallet(settings.key, provider)
const nodes = contracts.LogStoreNodeManager__factory.connect(addresses.nodeManagerAddress, wallet)
const stores = contracts.LogStoreManager__factory.connect(addresses.storeManagerAddress, wallet)
const queries = contracts.LogStoreQueryManager__factory.connect(addresses.queryManagerAddress, wallet)
const token = contracts.LSAN__factory.connect(addresses.tokenManagerAddress, wallet)
const mined = async (sending) => (await sending).wait()

async function buy() {
    const price = await client.getPrice()
    const before = await client.getBalance()
    await mined(client.mint(price * BigInt(settings.bought)))
    return {
        price: await client.getPrice(),
        converted: await client.convert({ amount: settings.bought, from: 'bytes', to: 'wei' }),
        gained: (await client.getBalance()) - before,
        proceeds: await token.balance(),
    }
}

async function store() {
    const isNew = await client.isLogStoreStream(streamId)
    const before = await client.getStreamBalance(streamId)
    const receipt = await mined(client.stakeOrCreateStore(streamId, settings.stored))
    const [event] = await stores.queryFilter(stores.filters.StoreUpdated(), receipt.blockNumber)
    return {
        wasStored: isNew,
        isStored: await client.isLogStoreStream(streamId),
        gained: (await client.getStreamBalance(streamId)) - before,
        own: await client.getStoreBalance(),
        ownOfStream: await stores.storeBalanceOf(wallet.address, streamId),
        stakeToken: await stores.stakeTokenAddress(),
        supply: await stores.totalSupply(),
        event: [event.args.store, event.args.isNew, event.args.amount],
    }
}

async function query() {
    await client.queryStake(settings.queried)
    return {
        balance: await client.getQueryBalance(),
        stakeToken: await queries.stakeTokenAddress(),
        supply: await queries.totalSupply(),
    }
}

async function join_() {
    const found = await nodes.nodes(node)
    await mined(token.approve(nodes.address, settings.delegated * 2))
    await mined(nodes.join(settings.delegated, '{"http":"http://127.0.0.1:1"}'))
    await mined(nodes.stakeAndDelegate(settings.delegated, node))
    const own = await nodes.nodes(wallet.address)
    return {
        addresses: await nodes.nodeAddresses(),
        total: await nodes.totalNodes(),
        metadata: found.metadata,
        lastSeen: found.lastSeen,
        ownMetadata: own.metadata,
        ownStake: own.stake,
        ownPrevious: own.prev,
        nodeStake: await nodes.nodeStake(node),
        isStaked: await nodes.isStaked(node),
        delegated: await nodes.delegatesOf(wallet.address, node),
        required: await nodes.stakeRequiredAmount(),
        stakeToken: await nodes.stakeTokenAddress(),
        supply: await nodes.totalSupply(),
        treasury: await nodes.treasurySupply(),
    }
}

const plain = (_, value) => {
    if (typeof value === 'bigint') return value.toString()
    return value?.type === 'BigNumber' ? BigInt(value.hex).toString() : value
}
const answers = { buy: await buy(), store: await store(), query: await query(), join: await join_() }
process.stdout.write(JSON.stringify(answers, plain), () => process.exit(0))
