package messages

import (
	"errors"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// What an answer means depends on who gave it and to what: a clock that is wrong
// is the end of the one message that was created by it, but a reason to wait where
// it keeps two machines from talking at all.

// final tells that a message to which the receiver answered err needs no other try.
func final(err error) bool {
	switch api.CodeOf(err) {
	case "", api.CodeRefused, api.CodeNotPermitted, api.CodeConflict, api.CodeExpired, api.CodeBadRequest, api.CodeTooLarge, api.CodeClockSkew:
		return true
	}
	return false
}

// finalOfAll tells that no message of a mail whose delivery failed with err needs
// another try: its receiver said so. Whom our own user has blocked has said nothing.
func finalOfAll(err error) bool {
	if _, said := errors.AsType[*router.Said](err); !said {
		return false
	}
	switch api.CodeOf(err) {
	case api.CodeRefused, api.CodeBadRequest, api.CodeTooLarge:
		return true
	}
	return false
}
