// The stream parts that a node has joined for its clients, and those whose turn has not come.

import { dispatchParts } from './dispatch.mjs'
import { Joining } from './joining.mjs'

export class Parts {
    // Before the node is started.
    static async of(node, stack) {
        return new Parts(node, await dispatchParts(stack))
    }

    constructor(node, dispatched) {
        this.node = node
        this.dispatched = dispatched
        this.users = new Map() // stream part id -> how many clients have joined it
        this.joining = new Joining((id) => {
            this.expect(id)
            return node.join(id)
        })
    }

    has(id) {
        return this.users.has(id)
    }

    isWaiting(id) {
        return this.joining.has(id)
    }

    countOverhearing() {
        return this.dispatched.countOverhearing()
    }

    // To be said before a message of ours too, which joins its part by itself.
    expect(id) {
        if (!this.node.hasStreamPart(id)) this.dispatched.expect(id)
    }

    async join(id) {
        if (!this.users.has(id)) await this.joining.add(id)
        this.users.set(id, (this.users.get(id) ?? 0) + 1)
    }

    async leave(id) {
        const left = this.users.get(id) - 1
        if (left > 0) return void this.users.set(id, left)
        this.users.delete(id)
        this.joining.forget(id)
        this.dispatched.forget(id)
        await this.node.leave(id) // nothing where its turn had not come, unless a message of ours joined it
    }
}
