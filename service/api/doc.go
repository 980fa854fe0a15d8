// Package api is the contract of the control socket: the shapes of requests
// and answers, the codes of errors, the limits, and the table of verbs.
// PROTOCOL.md in this folder is the normative text; a client in any language
// can be written from it alone. The package imports the standard library only.
package api

import "time"

// Version of the control protocol, told by hello. A daemon serves clients of
// the same major version.
const Version = 1

const (
	// MaxLine bounds a request or answer line, in bytes, with its newline.
	MaxLine = 1 << 20
	// MaxPayload bounds `data` of a call, reply or message, in bytes.
	MaxPayload = MaxLine - 4<<10
	// MaxID bounds a request's id, in bytes.
	MaxID = 256
	// MaxDepth bounds the nesting of objects and arrays in a line.
	MaxDepth = 128
	// MaxFiles bounds the descriptors that may ride on one request.
	MaxFiles = 4
	// MaxName bounds names of identities, contacts and instances, in bytes.
	MaxName = 64
	// MaxProtocol bounds a protocol's name, in bytes.
	MaxProtocol = 128

	// DefaultTimeout holds for a call without timeout_ms; MaxTimeout bounds it.
	DefaultTimeout = 30 * time.Second
	MaxTimeout     = time.Hour
	// DefaultMessageLife is how long a message is tried without expires_s;
	// MaxMessageLife bounds it. MessageMemory is how long both sides know a
	// message's id, so that it is not there twice.
	DefaultMessageLife = 7 * 24 * time.Hour
	MaxMessageLife     = 30 * 24 * time.Hour
	MessageMemory      = 60 * 24 * time.Hour
	// StreamResultTTL is how long the end of a stream can be asked for.
	StreamResultTTL = 5 * time.Minute
)

// Socket paths and environment variables that clients look at, in the order
// of DESIGN §10: --socket, --home, FASTN_SOCKET, FASTN_HOME, system, per user.
const (
	SystemSocket = "/run/fastn/daemon.sock"
	HomeSocket   = "daemon.sock" // below the home
	EnvSocket    = "FASTN_SOCKET"
	EnvHome      = "FASTN_HOME"

	// MaxSocketPath is what sockaddr_un takes, unix(7), less the final zero byte.
	MaxSocketPath = 107
)

// Names of protocols that are built in, and names with a meaning.
const (
	ProtocolEcho         = "Echo"
	ProtocolPing         = "Ping"
	ProtocolText         = "Text"
	ProtocolShell        = "Shell"
	ProtocolFileTransfer = "FileTransfer"

	DefaultInstance = "default"
	TargetSelf      = "self"
	WhoContacts     = "contacts"
	WhoAnyone       = "anyone"
)

// Status of an answer line.
const (
	StatusOK        = "ok"
	StatusError     = "error"
	StatusStreaming = "streaming"
	StatusIncoming  = "incoming" // to a listener: a call or stream to take
	StatusEvent     = "event"    // to a subscriber
)
