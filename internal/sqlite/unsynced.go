//go:build fastn_unsynced

package sqlite

// synchronous leaves commits to the kernel: what a power cut loses then shows
// that the tests of power cuts see a loss. No program that is shipped is built so.
const synchronous = "synchronous(OFF)"
