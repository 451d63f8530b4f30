package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/aovlb/aovlb/profilexml/rasphone/watch"
)

const serviceName = "aovlb-rasphonewatch"

// service is the watcher as Windows starts and stops it.
type service struct{ watcher *watch.Watcher }

// Execute runs until Windows says stop.
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.watcher.Run(ctx) // it logs what goes wrong
	}()
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	for {
		select {
		case <-done:
			stop()
			return false, 1
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending}
				stop()
				<-done
				return false, 0
			}
		}
	}
}

func serve(w *watch.Watcher) error { return svc.Run(serviceName, &service{w}) }

// install makes a service that starts with Windows, and again if it fails.
func install(connection, strategy string) error {
	if _, err := watcher(connection, strategy, os.Getenv); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("run it as an administrator: %w", err)
	}
	defer m.Disconnect() //nolint:errcheck // nothing is left to do
	s, err := m.CreateService(serviceName, program, mgr.Config{
		DisplayName: "Always On VPN protocol keeper", StartType: mgr.StartAutomatic, DelayedAutoStart: true,
		Description: "Keeps VpnStrategy of " + connection + " at " + strategy + ".",
	}, "service", connection, strategy)
	if err != nil {
		return fmt.Errorf("make the service: %w", err)
	}
	defer s.Close()
	again := []mgr.RecoveryAction{{Type: mgr.ServiceRestart, Delay: time.Minute}}
	return errors.Join(s.SetRecoveryActions(again, 86400), s.Start())
}

func remove() error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("run it as an administrator: %w", err)
	}
	defer m.Disconnect() //nolint:errcheck // nothing is left to do
	s, err := m.OpenService(serviceName)
	if err != nil {
		return fmt.Errorf("there is no such service: %w", err)
	}
	defer s.Close()
	if _, err := s.Control(svc.Stop); err != nil {
		fmt.Fprintln(os.Stderr, "it isn't running:", err)
	}
	return s.Delete()
}
