package p2p

import (
	"context"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/fastn-stack/fastnd/service/api"
)

// resetBase is the first of our codes on a reset stream (QUIC RESET_STREAM and
// STOP_SENDING, yamux RST). Libp2p's own are small numbers.
const resetBase network.StreamErrorCode = 0x46e00000

// resetCodes are what one side may tell the other, numbered by their place:
// append only. What describes the machine it happened on is aborted elsewhere.
var resetCodes = [...]api.Code{
	api.CodeAborted, api.CodeStalled, api.CodeTimeout, api.CodeCancelled,
	api.CodeOverBudget, api.CodeNotPermitted, api.CodeRefused, api.CodeProtocolUnavailable,
	api.CodeOffline, api.CodeTooLarge, api.CodeHandlerFailed, api.CodeBadRequest,
	api.CodeExpired, api.CodeOutcomeUnknown, api.CodeNotFound, api.CodeConflict,
	api.CodeClockSkew, api.CodeUnsupported,
}

func toResetCode(code api.Code) network.StreamErrorCode {
	for i, c := range resetCodes {
		if c == code {
			return resetBase + network.StreamErrorCode(i)
		}
	}
	return resetBase // aborted
}

func fromResetCode(n network.StreamErrorCode) api.Code {
	if n >= resetBase && n-resetBase < network.StreamErrorCode(len(resetCodes)) {
		return resetCodes[n-resetBase]
	}
	switch n {
	case network.StreamResourceLimitExceeded, network.StreamRateLimited:
		return api.CodeOverBudget
	}
	return api.CodeAborted
}

// streamError turns an error of a raw stream into an *api.Error. io.EOF itself,
// and only that, is a clean end: a lost connection may wrap it.
func streamError(err error) error {
	if err == nil || streamEnded(err) {
		return err
	}
	var se *network.StreamError
	if errors.As(err, &se) {
		side := "the peer"
		if !se.Remote {
			side = "this side"
		}
		code := fromResetCode(se.ErrorCode)
		return api.Errorf(code, "the stream was reset by %s: %s", side, codeText(code))
	}
	var ce *network.ConnError
	if errors.As(err, &ce) {
		return api.Errorf(api.CodeAborted, "the stream broke: the connection was closed")
	}
	return api.Errorf(api.CodeAborted, "the stream broke: the connection to the peer is lost")
}

func codeText(code api.Code) string {
	switch code {
	case api.CodeStalled:
		return "its reader stopped reading, and too many others have too"
	case api.CodeTimeout:
		return "it took too long"
	case api.CodeOverBudget:
		return "a limit was reached"
	}
	return string(code)
}

// ctxError says why ctx ended a request.
func ctxError(ctx context.Context, what string) *api.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.Errorf(api.CodeTimeout, "%s in the time allowed", what)
	}
	return api.Errorf(api.CodeCancelled, "the request was cancelled")
}

// streamEnded tells a clean end: io.EOF itself, not an error that wraps it.
func streamEnded(err error) bool { return err == io.EOF }
