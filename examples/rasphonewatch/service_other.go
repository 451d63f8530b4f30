//go:build !windows

package main

import (
	"errors"

	"github.com/aovlb/aovlb/profilexml/rasphone/watch"
)

var errNoService = errors.New("services are a thing of Windows: use run")

func serve(*watch.Watcher) error { return errNoService }

func install(_, _ string) error { return errNoService }

func remove() error { return errNoService }
