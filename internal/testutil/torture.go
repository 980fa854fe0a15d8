package testutil

import "os"

// torture asks for the long forms of tests: `make torture` sets it.
const torture = "FASTN_TORTURE"

// Torture tells whether the long forms of tests are wanted.
func Torture() bool { return os.Getenv(torture) != "" }

// Rounds is short in `make test` and long in `make torture`.
func Rounds(short, long int) int {
	if Torture() {
		return long
	}
	return short
}
