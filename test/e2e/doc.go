// Package e2e tests the Debian package on booted machines: a real systemd, real
// users, the package installed with apt, two machines joined by a cable.
//
// As root: go test ./test/e2e/... (packaging/install-deps installs what it
// needs). Every test runs on each Debian release that is supported, or on those
// that the environment variable FASTN_E2E_SUITE names: "bookworm", or "bookworm
// trixie". FASTN_E2E_APT names an apt repository made before.
package e2e
