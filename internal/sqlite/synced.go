//go:build !fastn_unsynced

package sqlite

// synchronous has every commit on the disk before it is answered.
const synchronous = "synchronous(FULL)"
