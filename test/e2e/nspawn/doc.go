// Package nspawn boots whole Debian machines with a real systemd for tests.
//
// A machine is a private copy-on-write layer over one Debian tree, booted by
// systemd-nspawn inside a mount namespace, a control group and a network
// namespace of its own. Nothing of it is registered with the host, and all of
// it ends with the test: the container's first process dies with nspawn, and
// nspawn dies with the test.
//
// It needs root, Linux, mmdebstrap, systemd-nspawn, iproute2 and util-linux
// (packaging/install-deps installs them).
package nspawn
