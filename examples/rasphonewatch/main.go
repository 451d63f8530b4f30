// Command rasphonewatch keeps VpnStrategy of the connections of all users as it
// is meant to be, as a service of Windows.
//
//	rasphonewatch run "Always On VPN" Ikev2Sstp        in the foreground, on any system
//	rasphonewatch install "Always On VPN" Ikev2Sstp    as a service that starts with Windows
//	rasphonewatch remove
//
// Users' own connections are in files of theirs: for those, run it, or aovlb
// rasphone watch, in a scheduled task at their logon.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/aovlb/aovlb/profilexml/rasphone"
	"github.com/aovlb/aovlb/profilexml/rasphone/watch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Getenv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rasphonewatch:", err)
		os.Exit(1)
	}
}

// command does what the arguments say.
func command(ctx context.Context, args []string, getenv func(string) string) error {
	switch {
	case len(args) == 3 && args[0] == "run":
		w, err := watcher(args[1], args[2], getenv)
		if err != nil {
			return err
		}
		if err := w.Run(ctx); ctx.Err() == nil { // nobody asked it to end
			return err
		}
		return nil
	case len(args) == 3 && args[0] == "service":
		w, err := watcher(args[1], args[2], getenv)
		if err != nil {
			return err
		}
		return serve(w)
	case len(args) == 3 && args[0] == "install":
		return install(args[1], args[2])
	case len(args) == 1 && args[0] == "remove":
		return remove()
	}
	return errors.New("call it as: rasphonewatch run|install CONNECTION STRATEGY, or rasphonewatch remove")
}

// watcher keeps the strategy of a connection, in the phone book of all users or
// in that of PBK.
func watcher(connection, strategy string, getenv func(string) string) (*watch.Watcher, error) {
	s, err := rasphone.ParseStrategy(strategy)
	if err != nil {
		return nil, err
	}
	w := &watch.Watcher{
		Edit: rasphone.Edit{Entries: []string{connection}, Set: []rasphone.Setting{s.Setting()}},
		Log:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if path := getenv("PBK"); path != "" {
		w.Files = []string{path}
		return w, nil
	}
	for _, p := range rasphone.Places(getenv) {
		if p.AllUsers {
			w.Files = append(w.Files, p.Path)
		}
	}
	if len(w.Files) == 0 {
		return nil, errors.New("this is no Windows: name the phone book in the variable PBK")
	}
	return w, nil
}
