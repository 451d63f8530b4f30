package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// networkTable is a table of networks in YAML.
type networkTable struct {
	Networks []plugins.GeoNetwork `json:"networks"`
}

// maxNetworkTable bounds a table in YAML, in bytes. A larger one is better kept as
// values divided by commas, which are read many times as fast.
const maxNetworkTable = 4 << 20

// geoNetworks returns networks as geo has them.
func geoNetworks(list []plugins.GeoNetwork) []geo.Network {
	out := make([]geo.Network, 0, len(list))
	for i := range list {
		n := &list[i]
		p := geoPlace(&n.GeoPlace)
		p.Network = n.Name
		out = append(out, geo.Network{Prefix: n.Prefix, Place: p})
	}
	return out
}

// readNetworks reads a table of networks: YAML if its name says so.
func readNetworks(name string, files contents) ([]geo.Network, error) {
	text, err := files.read(name)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{".yaml", ".yml"}, strings.ToLower(filepath.Ext(name))) {
		return geo.ReadNetworks(bytes.NewReader(text), name)
	}
	return parseNetworks(name, text)
}

// parseNetworks reads a table in YAML. The error has every fault, with its line.
func parseNetworks(name string, text []byte) ([]geo.Network, error) {
	if len(text) > maxNetworkTable {
		return nil, fmt.Errorf("%s is larger than %d bytes: make it a table of values divided by commas", name, maxNetworkTable)
	}
	s := &source{file: name}
	var t networkTable
	var faults []Fault
	s.at, faults = decode(text, &t)
	if len(faults) == 0 {
		for _, e := range plugins.FieldErrors(plugins.ValidateNetworks(t.Networks)) {
			faults = append(faults, s.fault(e.Path, e.Err.Error()))
		}
	}
	if len(faults) > 0 {
		return nil, &Faults{File: name, List: faults[:min(len(faults), maxFaults)]}
	}
	return geoNetworks(t.Networks), nil
}
