// WebRTC is asked for only where a node has no websocket server; then this says so.
class PeerConnection {
    constructor() {
        throw new Error('no WebRTC here: node-datachannel is a stub')
    }
}
module.exports = { initLogger() {}, cleanup() {}, PeerConnection, DataChannel: class {} }
