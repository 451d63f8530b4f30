package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/profilexml/rasphone"
)

var rasphoneGetCommand = command{
	name: "get", usage: "[--file F] [--entry NAME] [--json] [KEY…]", short: "show connections", run: runRasphoneGet,
}

// shownKeys are what get shows unasked.
var shownKeys = []string{
	"VpnStrategy", "PhoneNumber", "DeviceTunnel", "AuthRestrictions", "DataEncryption", "IpInterfaceMetric", "Ipv6InterfaceMetric", "DisableMobility",
	"NetworkOutageTime", "UseRasCredentials", "CacheCredentials", "DisableIKENameEkuCheck", "DisableClassBasedDefaultRoute", "IpPrioritizeRemote", "IpDnsFlags",
}

// shownLists are lists, which get shows in words.
var shownLists = []struct {
	key, name string
	text      func(rasphone.Entry) ([]string, error)
}{
	{"CustomIPSecPolicies", "Suite", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.Policies()) }},
	{"Routes", "Routes", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.Routes()) }},
	{"NrptRules", "NrptRules", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.NameRules()) }},
	{"TrustedNetworks", "TrustedNetworks", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.TrustedNetworks()) }},
	{"DnsSuffixSearchList", "DnsSuffixSearchList", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.DNSSuffixes()) }},
	{"PerAppTrafficFilters", "PerAppTrafficFilters", func(e rasphone.Entry) ([]string, error) { return itemTexts(e.TrafficFilters()) }},
}

func itemTexts[T any](list []T, err error) ([]string, error) {
	var all []string
	for _, x := range list {
		all = append(all, fmt.Sprint(x))
	}
	return all, err
}

// shownEntry is what rasphone get --json prints of a connection.
type shownEntry struct {
	File   string              `json:"file"`
	Line   int                 `json:"line"`
	Name   string              `json:"name"`
	Values map[string]string   `json:"values"`
	Lists  map[string][]string `json:"lists,omitempty"`
	order  []string
}

func runRasphoneGet(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("rasphone get", flag.ContinueOnError)
	var books phonebooks
	var names verbatim
	books.flags(fs)
	fs.Var(&names, "entry", "the exact `name` of a connection; may be repeated")
	asJSON := fs.Bool("json", false, "print JSON")
	keys := fs.Bool("keys", false, "print what is known about keys, as Markdown")
	args, err := parse(env, fs, args, anyNumber)
	if err != nil {
		return err
	}
	if *keys {
		_, err := fmt.Fprint(env.stdout, rasphone.KeysMarkdown())
		return err
	}
	for _, a := range args {
		if strings.HasSuffix(strings.ToLower(a), ".pbk") {
			return &usageError{fmt.Sprintf("%q is no key: a phone book is given by --file", a)}
		}
	}
	paths, err := books.present(env)
	if err != nil {
		return err
	}
	list := []*shownEntry{}
	for _, path := range paths {
		p, err := (&rasphone.File{Path: path}).Read(ctx)
		if err != nil {
			return err
		}
		if err := notEntries(p, args); err != nil {
			return err
		}
		chosen := p.Entries()
		if len(names) > 0 {
			chosen = nil
		}
		for _, n := range names {
			e, err := p.Entry(n)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			chosen = append(chosen, e)
		}
		for _, e := range chosen {
			s, err := showEntry(path, e, args)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			list = append(list, s)
		}
	}
	if *asJSON {
		return printJSON(env.stdout, list)
	}
	for _, s := range list {
		s.print(env, len(paths) > 1)
	}
	return nil
}

// notEntries notices if a connection is given where a key should be.
func notEntries(p *rasphone.Phonebook, keys []string) error {
	for _, name := range keys {
		if _, known := rasphone.LookupKey(name); known {
			continue
		}
		for _, e := range p.Entries() {
			if e.Name() == name {
				return &usageError{fmt.Sprintf("%q is a connection and no key: a connection is given by --entry", name)}
			}
		}
	}
	return nil
}

// showEntry collects what is shown of an entry: the keys asked for, or the usual
// ones that it has.
func showEntry(path string, e rasphone.Entry, keys []string) (*shownEntry, error) {
	s := &shownEntry{File: path, Line: e.Line(), Name: e.Name(), Values: map[string]string{}, Lists: map[string][]string{}}
	asked := keys
	if len(keys) == 0 {
		keys = shownKeys
		for _, l := range shownLists {
			keys = append(keys[:len(keys):len(keys)], l.key)
		}
	}
	for _, name := range keys {
		if k, ok := rasphone.LookupKey(name); ok {
			name = k.Name
		}
		switch shown, err := s.list(e, name); {
		case err != nil && len(asked) > 0:
			return nil, err
		case err != nil: // the rest can be shown
			s.Lists[name] = []string{"can't be read, see aovlb rasphone check"}
			s.order = append(s.order, name)
			continue
		case shown:
			continue
		}
		v, ok := e.Get(name)
		if !ok {
			if len(asked) > 0 {
				return nil, fmt.Errorf("entry %q has no %s", e.Name(), name)
			}
			continue
		}
		if k, known := rasphone.LookupKey(name); known && k.Secret && v != "" {
			v = "(secret)"
		}
		s.Values[name] = v
		s.order = append(s.order, name)
	}
	return s, nil
}

// list takes a key as a list, if it is one.
func (s *shownEntry) list(e rasphone.Entry, key string) (bool, error) {
	for _, l := range shownLists {
		if l.key != key && l.name != key {
			continue
		}
		items, err := l.text(e)
		if err != nil {
			return false, err
		}
		if len(items) > 0 {
			s.Lists[l.name] = items
			s.order = append(s.order, l.name)
		}
		return true, nil
	}
	return false, nil
}

func (s *shownEntry) print(env *environment, withFile bool) {
	where := ""
	if withFile {
		where = "  (" + s.File + ")"
	}
	fmt.Fprintf(env.stdout, "[%s]%s\n", printableLine(s.Name), where)
	for _, name := range s.order {
		for _, item := range s.Lists[name] {
			fmt.Fprintf(env.stdout, "  %-30s %s\n", name, printableLine(item))
		}
		v, ok := s.Values[name]
		if !ok {
			continue
		}
		if k, known := rasphone.LookupKey(name); known {
			if word := k.Describe(v); word != "" {
				v += " (" + word + ")"
			}
		}
		fmt.Fprintf(env.stdout, "  %-30s %s\n", name, printableLine(v))
	}
}
