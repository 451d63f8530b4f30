package npscert

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxProfile bounds a ProfileXML, in bytes.
const maxProfile = 1 << 20

// ReadProfile reads what a ProfileXML, or an EapHostConfig alone, says of servers:
// the expressions in its ServerNames and the thumbprints in its TrustedRootCA.
func ReadProfile(r io.Reader) (serverNames, thumbprints []string, err error) {
	d := xml.NewDecoder(io.LimitReader(r, maxProfile))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, errors.New("save the profile as UTF-8")
	}
	var in string
	add := func(to *[]string, s string) {
		if s = strings.TrimSpace(s); s != "" && !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("npscert: profile: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			in = t.Name.Local
		case xml.EndElement:
			in = ""
		case xml.CharData:
			switch in {
			case "ServerNames":
				for name := range strings.SplitSeq(string(t), ";") {
					add(&serverNames, name)
				}
			case "TrustedRootCA":
				add(&thumbprints, hexOnly(string(t)))
			}
		}
	}
	if len(serverNames)+len(thumbprints) == 0 {
		return nil, nil, errors.New("npscert: the profile has neither ServerNames nor TrustedRootCA: it doesn't check servers at all, or isn't a profile with EAP")
	}
	return serverNames, thumbprints, nil
}
