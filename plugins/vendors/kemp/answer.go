package kemp

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A node is a part of an answer, of JSON or XML alike. Names don't depend on case,
// as the LoadMaster spells them differently from command to command. Nil is an empty
// node.
type node struct {
	text string
	kids map[string][]*node
}

// maxDepth bounds how deep an answer is nested.
const maxDepth = 16

var errDeep = errors.New("the answer is nested too deeply")

// all returns the nodes of a name.
func (n *node) all(name string) []*node {
	if n == nil {
		return nil
	}
	return n.kids[strings.ToLower(name)]
}

// get returns the text of the first node of a name; empty if there is none.
func (n *node) get(name string) string {
	if list := n.all(name); len(list) > 0 {
		return list[0].text
	}
	return ""
}

// yes reports whether a boolean is set: they come as Y, 1 or true.
func (n *node) yes(name string) bool { return isYes(n.get(name)) }

func isYes(s string) bool {
	switch strings.ToLower(s) {
	case "y", "yes", "1", "true":
		return true
	}
	return false
}

// number returns a count; what isn't one is 0.
func (n *node) number(name string) uint64 {
	x, err := strconv.ParseUint(strings.TrimSpace(n.get(name)), 10, 64)
	if err != nil {
		return 0
	}
	return x
}

func (n *node) add(name string, kid *node) {
	if n.kids == nil {
		n.kids = make(map[string][]*node)
	}
	name = strings.ToLower(name)
	n.kids[name] = append(n.kids[name], kid)
}

// parseJSON reads an answer of version 2.
func parseJSON(b []byte) (*node, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("the answer is no JSON: %w", err)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the answer is no JSON object")
	}
	n := new(node)
	return n, n.object(object, 0)
}

func (n *node) object(v map[string]any, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	for name, x := range v {
		list, ok := x.([]any)
		if !ok {
			list = []any{x}
		}
		for _, x := range list {
			kid := new(node)
			switch x := x.(type) {
			case map[string]any:
				if err := kid.object(x, depth+1); err != nil {
					return err
				}
			case string:
				kid.text = x
			case json.Number:
				kid.text = x.String()
			case bool:
				kid.text = map[bool]string{true: "Y", false: "N"}[x]
			case nil, []any:
				continue // nothing that is asked for is nested so
			}
			n.add(name, kid)
		}
	}
	return nil
}

// parseXML reads an answer of version 1: what is within Success and Data, and the
// number and the text of an error.
func parseXML(b []byte) (n *node, code int, fault string, err error) {
	dec := xml.NewDecoder(bytes.NewReader(b))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // it says ISO-8859-1, and uses ASCII
	for {
		t, err := dec.Token()
		if err != nil {
			return nil, 0, "", fmt.Errorf("the answer is no XML: %w", err)
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Local != "Response" {
			return nil, 0, "", fmt.Errorf("the answer is a %q, not a Response", start.Name.Local)
		}
		for _, a := range start.Attr {
			if a.Name.Local == "stat" {
				code, _ = strconv.Atoi(a.Value) // what is no number is no success
			}
		}
		root := new(node)
		if err := root.element(dec, 0); err != nil {
			return nil, 0, "", fmt.Errorf("the answer is no XML: %w", err)
		}
		fault = root.get("Error")
		for _, name := range []string{"Success", "Data"} {
			if list := root.all(name); len(list) > 0 {
				root = list[0]
			}
		}
		return root, code, fault, nil
	}
}

func (n *node) element(dec *xml.Decoder, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	for {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			kid := new(node)
			if err := kid.element(dec, depth+1); err != nil {
				return err
			}
			n.add(t.Name.Local, kid)
		case xml.CharData:
			n.text += string(t)
		case xml.EndElement:
			n.text = strings.TrimSpace(n.text)
			return nil
		}
	}
}
