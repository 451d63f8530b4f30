package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// printFastPath shows what the kernel carries of the clients' packets, and what it
// doesn't, and why.
func printFastPath(w io.Writer, s *plugins.Stats) {
	f := s.FastPath
	if f == nil {
		return
	}
	if !f.Active {
		fmt.Fprintf(w, "\nfast path (%s): none, this program carries everything: %s\n", f.Mode, f.Reason)
		return
	}
	var at []string
	for _, name := range slices.Sorted(maps.Keys(f.Attached)) {
		at = append(at, name+" ("+f.Attached[name]+")")
	}
	fmt.Fprintf(w, "\nfast path (%s): at %s, %d of %d flows", f.Mode, strings.Join(at, ", "), f.Flows, f.MaxFlows)
	if f.Waiting > 0 {
		fmt.Fprintf(w, ", %d of them of before", f.Waiting)
	}
	if f.Full > 0 {
		fmt.Fprintf(w, ", %d refused for lack of room (max_flows)", f.Full)
	}
	if f.Failed > 0 {
		fmt.Fprintf(w, ", %d that found no place", f.Failed)
	}
	if f.Dropped > 0 {
		fmt.Fprintf(w, ", %d first messages dropped (first_messages)", f.Dropped)
	}
	fmt.Fprintln(w)
	for i := range s.Listeners {
		if text := carriedShare(&s.Listeners[i]); text != "" {
			fmt.Fprintf(w, "  %s: %s\n", s.Listeners[i].Name, text)
		}
	}
	if len(f.Left) > 0 {
		var left []string
		for _, why := range slices.Sorted(maps.Keys(f.Left)) {
			left = append(left, fmt.Sprintf("%d %s", f.Left[why], why))
		}
		fmt.Fprintf(w, "  left to this program: %s\n", strings.Join(left, ", "))
	}
	if f.Left["forwarding"] > 0 {
		fmt.Fprintln(w, "  the kernel looks up no routes: set net.ipv4.conf.lo.forwarding (and net.ipv6.conf.lo.forwarding) to 1")
	}
}

// carriedShare says what part of a listener's packets the fast path carries.
func carriedShare(l *plugins.ListenerStats) string {
	if l.Carried == nil || l.In == nil || l.Out == nil {
		return ""
	}
	packets, bytes := l.In.Packets+l.Out.Packets, l.In.Bytes+l.Out.Bytes
	if packets == 0 || bytes == 0 {
		return "no packets so far"
	}
	return fmt.Sprintf("%.1f %% of %d packets, %.1f %% of %s", 100*float64(l.Carried.Packets)/float64(packets), packets,
		100*float64(l.Carried.Bytes)/float64(bytes), bytesText(float64(bytes)))
}
