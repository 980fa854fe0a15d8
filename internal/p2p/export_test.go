package p2p

// FromResetCode is for tests of what a peer sees.
var FromResetCode = fromResetCode
