// Hands each message to the listener whom it concerns.
//
// The library gives every message to a listener of each stream part, on two layers, and each looks whether the service
// is its own: at a thousand parts that costs as much as all else together. Its delivery of stream parts takes any
// transports, though. Those made here are its own, but for messages: the service of a listener is found out when it
// registers, by showing it a message without content, and looked up when a message comes. A listener whose service is
// not found hears everything, as without us.

const NOBODY = '\0 of no service'

// Before the stack is started. Whoever joins a part expects it first, and forgets it when it has left.
export async function dispatchParts(stack) {
    await stack.getControlLayerNode().start()
    const connections = stack.getConnectionManager()
    const discovery = new Dispatcher(stack.getControlLayerNode())
    const delivery = new Dispatcher(connections)
    await stack.getContentDeliveryManager().start(discovery.transport, delivery.transport, connections)
    const services = (id) => [[discovery, `layer1::${id}`], [delivery, `stream-part-delivery-${id}`]]
    return {
        expect: (id) => services(id).forEach(([dispatcher, service]) => dispatcher.expected.add(service)),
        forget: (id) => services(id).forEach(([dispatcher, service]) => dispatcher.expected.delete(service)),
        countOverhearing: () => discovery.overhearing.size + delivery.overhearing.size
    }
}

export class Dispatcher {
    constructor(transport) {
        this.expected = new Set() // services whose listeners will come
        this.overhearing = new Set() // listeners whose service is not known
        this.listeners = new Map() // service -> its listeners
        this.services = new Map() // listener -> its service
        this.transport = this.stand(transport)
        transport.on('message', (message) => {
            for (const listener of this.listeners.get(message.serviceId) ?? []) listener(message)
            for (const listener of this.overhearing) listener(message)
        })
    }

    // All that the transport is, with an ear of our own for messages.
    stand(transport) {
        const own = {
            on: (event, ...rest) => (event === 'message' ? this.add(...rest) : transport.on(event, ...rest)),
            off: (event, ...rest) => (event === 'message' ? this.remove(...rest) : transport.off(event, ...rest))
        }
        const bound = new Map()
        return new Proxy(transport, {
            get(_, name) {
                if (Object.hasOwn(own, name)) return own[name]
                const value = transport[name]
                if (typeof value !== 'function') return value
                if (bound.get(name)?.value !== value) bound.set(name, { value, call: value.bind(transport) })
                return bound.get(name).call
            }
        })
    }

    add(listener) {
        const service = this.find(listener)
        if (service === undefined) {
            this.overhearing.add(listener)
            return
        }
        this.expected.delete(service)
        this.services.set(listener, service)
        this.listeners.set(service, [...(this.listeners.get(service) ?? []), listener])
    }

    remove(listener) {
        this.overhearing.delete(listener)
        const service = this.services.get(listener)
        if (service === undefined) return
        this.services.delete(listener)
        const others = this.listeners.get(service).filter((other) => other !== listener)
        if (others.length > 0) this.listeners.set(service, others)
        else this.listeners.delete(service)
    }

    find(listener) {
        if (looksInto(listener, NOBODY)) return undefined // it does not go by services
        for (const service of this.expected) if (looksInto(listener, service)) return service
        return undefined
    }
}

function looksInto(listener, serviceId) {
    let looked = false
    listener({
        serviceId,
        get body() {
            looked = true
            return { oneofKind: undefined }
        }
    })
    return looked
}
