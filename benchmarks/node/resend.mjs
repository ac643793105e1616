// Reads a partition with Streamr's SDK, which verifies every message, and says what that took of this process's CPU.
//
//     node resend.mjs CONFIG.json      fields: see validator/devnet/sdk/client.mjs, and "stream", "fromMs", "rounds"

import { config, createClient, tell } from '../../validator/devnet/sdk/client.mjs'

const client = createClient(config.peers[0])
for (let round = 0; round < config.rounds; round += 1) {
    const before = process.cpuUsage()
    let count = 0
    for await (const message of await client.resend(
        { id: config.stream, partition: 0 }, { from: { timestamp: config.fromMs } }
    )) count += message.timestamp > 0 ? 1 : 0
    const { user, system } = process.cpuUsage(before)
    tell('resend', { count, cpuS: (user + system) / 1e6 })
}
process.exit(0)
