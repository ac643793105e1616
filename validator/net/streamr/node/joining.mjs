// When stream parts are joined: a few at once, the others one behind the other.
//
// A joined part looks for others of its kind six times within a minute, and once a minute, counted from its join, it
// asks after each neighbour and tells the network of itself. Of a thousand parts joined at one time all of that comes
// at one time too: answers take longer than the five seconds that the library waits for them, parts drop neighbours who
// are there, and look for new ones, for ever. A thousand spread over a minute or more never meet.

import { setTimeout as rest } from 'node:timers/promises'

const PACE = {
    atOnce: 32, // who has few parts waits for none
    everyMs: 60, // a thousand within the minute after which they all ask again
    longestMs: 2_000, // a program that is always busy joins too
    againMs: 5_000 // after a join that went wrong
}
// So many times as long as the process was late for the next join it leaves it be: of its time, joins get a fraction.
const LATENESS_WEIGHS = 5

export class Joining {
    constructor(join, pace = {}) {
        this.join = join
        this.pace = { ...PACE, ...pace }
        this.waiting = new Set()
        this.allowed = this.pace.atOnce
        this.counted = performance.now()
        this.working = false
    }

    has(id) {
        return this.waiting.has(id)
    }

    // Joined when this returns, and what goes wrong the caller hears; or its turn comes later.
    async add(id) {
        const now = performance.now()
        this.allowed = Math.min(this.pace.atOnce, this.allowed + (now - this.counted) / this.pace.everyMs)
        this.counted = now
        if (this.allowed >= 1 && this.waiting.size === 0) {
            this.allowed -= 1
            return this.join(id)
        }
        this.waiting.add(id)
        if (!this.working) this.work()
    }

    // True: its turn had not come, and will not.
    forget(id) {
        return this.waiting.delete(id)
    }

    async work() {
        this.working = true
        while (this.waiting.size > 0) {
            await this.turn()
            const [id] = this.waiting
            if (id === undefined) break
            try {
                await this.join(id)
                this.waiting.delete(id)
            } catch (error) {
                console.error(`joining ${id}: ${error.message}`)
                if (this.waiting.delete(id)) this.waiting.add(id) // behind the others, who may fare better
                await rest(this.pace.againMs)
            }
        }
        this.allowed = 0
        this.counted = performance.now()
        this.working = false
    }

    async turn() {
        const { everyMs, longestMs } = this.pace
        const due = performance.now() + everyMs
        await rest(everyMs)
        const late = performance.now() - due
        if (late > 1) await rest(Math.min(LATENESS_WEIGHS * late, longestMs))
    }
}
