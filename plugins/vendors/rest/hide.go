package rest

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
)

// hidden stands where something was left out.
const hidden = "…"

// long is what may be a file that was sent as base64, or a line of one.
var long = regexp.MustCompile(`[A-Za-z0-9+/]{60,}={0,2}`)

// unencoded returns s if it is a word, such as a long name, and not base64.
func unencoded(s string) string {
	if strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") && strings.ContainsAny(s, "0123456789") {
		return hidden
	}
	return s
}

// Hide returns what an appliance said in one line and without secrets: those that are
// given, however they are encoded, and whatever looks like a file with a key, for an
// appliance may repeat what it was sent.
func Hide(text string, secrets ...string) string {
	for range 2 { // what was over several lines is in one the second time
		for _, s := range secrets {
			for _, form := range forms(s) {
				if form != "" {
					text = strings.ReplaceAll(text, form, hidden)
				}
			}
		}
		text = line(text)
	}
	if i := strings.Index(text, "-----BEGIN"); i >= 0 {
		text = text[:i] + hidden
	}
	return long.ReplaceAllStringFunc(text, unencoded)
}

// forms are the ways in which a secret may be repeated.
func forms(s string) []string {
	quoted, _ := json.Marshal(s) // text can be marshalled
	return []string{
		s, line(s), strings.Trim(string(quoted), `"`), url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)),
		base64.RawURLEncoding.EncodeToString([]byte(s)),
	}
}

// line is text in one line.
func line(text string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
}

// Cut shortens a text to at most most bytes, and says that it did.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + hidden
}
