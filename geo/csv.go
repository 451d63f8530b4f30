package geo

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// networkColumns are what a table of networks may have.
var networkColumns = []string{"prefix", "name", "continent", "country", "subdivision", "asn", "latitude", "longitude"}

// maxNetworks bounds a table.
const maxNetworks = 1_000_000

// ReadNetworks reads a table of networks as spreadsheets write it: values divided
// by commas, a network a line. Its first line names the columns, in any order:
// prefix, which must be there, name, continent, country, subdivision, asn,
// latitude and longitude. Lines that begin with # don't count. Errors say file and
// line.
func ReadNetworks(r io.Reader, file string) (list []Network, err error) {
	c := csv.NewReader(r)
	c.Comment, c.TrimLeadingSpace = '#', true
	c.ReuseRecord = true
	columns, err := c.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty; its first line names the columns")
		}
		return nil, fmt.Errorf("geo: %s: %w", file, err)
	}
	columns = slices.Clone(columns)
	for i, name := range columns {
		columns[i] = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
		if !slices.Contains(networkColumns, columns[i]) || slices.Contains(columns[:i], columns[i]) {
			return nil, fmt.Errorf("geo: %s: column %q is unknown or there twice; there are %s", file, name, strings.Join(networkColumns, ", "))
		}
	}
	if !slices.Contains(columns, "prefix") {
		return nil, fmt.Errorf("geo: %s: there is no column prefix", file)
	}
	for {
		values, err := c.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err == nil && len(list) == maxNetworks {
			err = fmt.Errorf("more than %d networks", maxNetworks)
		}
		if err != nil {
			return nil, fmt.Errorf("geo: %s: %w", file, err)
		}
		n, err := readNetwork(columns, values)
		if err != nil {
			line, _ := c.FieldPos(0)
			return nil, fmt.Errorf("geo: %s:%d: %w", file, line, err)
		}
		list = append(list, n)
	}
}

// readNetwork reads a line.
func readNetwork(columns, values []string) (n Network, err error) {
	p := &n.Place
	var lat, lon bool
	for i, v := range values {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		switch columns[i] {
		case "prefix":
			if n.Prefix, err = netip.ParsePrefix(v); err == nil && (n.Prefix != n.Prefix.Masked() || n.Prefix.Addr().Is4In6()) {
				err = fmt.Errorf("%v has bits behind its length, or is IPv4 as IPv6", n.Prefix)
			}
		case "name":
			p.Network = v
		case "continent":
			p.Continent, err = code(v, 2)
		case "country":
			p.Country, err = code(v, 2)
		case "subdivision":
			if p.Subdivision = v; len(v) < 4 || v[2] != '-' {
				err = fmt.Errorf("subdivision %q is not like US-WA", v)
			}
		case "asn":
			var a uint64
			a, err = strconv.ParseUint(strings.TrimPrefix(v, "AS"), 10, 32)
			p.ASN = uint32(a)
		case "latitude":
			lat = true
			p.Latitude, err = strconv.ParseFloat(v, 64)
		case "longitude":
			lon = true
			p.Longitude, err = strconv.ParseFloat(v, 64)
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", columns[i], err)
		}
	}
	switch p.Located = lat && lon; {
	case !n.Prefix.IsValid():
		return n, errors.New("there is no prefix")
	case lat != lon:
		return n, errors.New("latitude and longitude need each other")
	case lat && !p.valid():
		return n, fmt.Errorf("latitude %v, longitude %v is no place", p.Latitude, p.Longitude)
	}
	return n, nil
}

// code wants n capital letters.
func code(s string, n int) (string, error) {
	if len(s) != n || strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return "", fmt.Errorf("%q is not %d capital letters", s, n)
	}
	return s, nil
}
