//go:build !unix

package main

import (
	"net"
	"os"
)

// inherited has nothing to return where there is no systemd.
func (e *environment) inherited() ([]*os.File, error) { return nil, nil }

// listenPrivate opens a unix socket, as private as its directory.
func listenPrivate(path string) (net.Listener, error) { return net.Listen("unix", path) }
