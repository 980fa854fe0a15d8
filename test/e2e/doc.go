// Package e2e tests the Debian package on booted machines: a real systemd, real
// users, the package installed with apt, two machines joined by a cable.
//
// As root: go test ./test/e2e/... (packaging/install-deps installs what it
// needs). The environment variable FASTN_E2E_SUITE chooses another Debian
// release than bookworm, FASTN_E2E_APT an apt repository made before.
package e2e
