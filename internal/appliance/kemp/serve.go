package kemp

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxRequest bounds a request, in bytes.
const maxRequest = 4 << 20

// ServeHTTP answers both versions of the API.
func (b *Box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch command, isV1 := strings.CutPrefix(r.URL.Path, "/access/"); {
	case isV1:
		b.serveV1(w, r, command, body)
	case r.URL.Path == "/accessv2" && r.Method == http.MethodPost:
		b.serveV2(w, body)
	default:
		http.Error(w, "<html>Not found</html>", http.StatusNotFound)
	}
}

func (b *Box) serveV1(w http.ResponseWriter, r *http.Request, command string, body []byte) {
	user, password, _ := r.BasicAuth()
	if user != b.User || password != b.Password {
		http.Error(w, "<html>Not allowed for "+user+" "+password+"</html>", http.StatusUnauthorized)
		return
	}
	a := &args{values: make(map[string]string), file: body}
	for name, list := range r.URL.Query() {
		a.values[strings.ToLower(name)] = list[len(list)-1]
	}
	out, f := b.run(command, a)
	var s strings.Builder
	s.WriteString(`<?xml version="1.0" encoding="ISO-8859-1"?>` + "\n")
	if f != nil {
		fmt.Fprintf(&s, `<Response stat="%d" code="fail"><Error>%s</Error></Response>`, f.code, escape(f.text))
	} else {
		s.WriteString(`<Response stat="200" code="ok"><Success>`)
		switch {
		case out == nil:
			s.WriteString("Command completed ok")
		case command == "readcert":
			s.WriteString(escape(fmt.Sprint(out[0].value))) // it comes bare
		default:
			s.WriteString("<Data>")
			writeXML(&s, out)
			s.WriteString("</Data>")
		}
		s.WriteString("</Success></Response>")
	}
	w.Header().Set("Content-Type", "text/xml")
	if f != nil {
		w.WriteHeader(f.code)
	}
	_, _ = io.WriteString(w, s.String()) // whoever asked may have gone
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}

func writeXML(s *strings.Builder, a answer) {
	for _, e := range a {
		s.WriteString("<" + e.name + ">")
		switch v := e.value.(type) {
		case answer:
			writeXML(s, v)
		case yesNo:
			s.WriteString(map[yesNo]string{true: "Y", false: "N"}[v])
		default:
			s.WriteString(escape(fmt.Sprint(v)))
		}
		s.WriteString("</" + e.name + ">")
	}
}

func (b *Box) serveV2(w http.ResponseWriter, body []byte) {
	var raw map[string]any
	if err := json.Unmarshal(body, &raw); err != nil {
		writeJSON(w, nil, &fault{http.StatusBadRequest, "Invalid JSON"})
		return
	}
	a := &args{values: make(map[string]string)}
	for name, v := range raw {
		switch v := v.(type) {
		case string:
			a.values[strings.ToLower(name)] = v
		case bool, float64:
			a.values[strings.ToLower(name)] = fmt.Sprint(v)
		default:
			writeJSON(w, nil, bad("Invalid value for %s", name))
			return
		}
	}
	key, user, password, command := a.take("apikey"), a.take("apiuser"), a.take("apipass"), a.take("cmd")
	if key != b.Key && (user != b.User || password != b.Password) {
		writeJSON(w, nil, &fault{http.StatusUnauthorized, "Invalid key " + key + password})
		return
	}
	if data, ok := a.values["data"]; ok {
		file, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			writeJSON(w, nil, bad("Invalid data"))
			return
		}
		a.take("data")
		a.file = file
	}
	out, f := b.run(command, a)
	writeJSON(w, out, f)
}

func writeJSON(w http.ResponseWriter, a answer, f *fault) {
	out := map[string]any{"code": 200, "status": "ok", "message": "Command completed ok"}
	if f != nil {
		out = map[string]any{"code": f.code, "status": "fail", "message": f.text}
	}
	fill(out, a)
	w.Header().Set("Content-Type", "application/json")
	if f != nil {
		w.WriteHeader(f.code)
	}
	_ = json.NewEncoder(w).Encode(out) // whoever asked may have gone
}

// lists are the fields that are lists even if they have one element.
var lists = map[string]bool{"VS": true, "Vs": true, "Rs": true, "cert": true, "MatchContentRule": true, "fqdn": true, "Map": true, "country": true, "continent": true}

func fill(out map[string]any, a answer) {
	for _, e := range a {
		v := e.value
		switch x := v.(type) {
		case answer:
			inner := make(map[string]any)
			fill(inner, x)
			v = inner
		case yesNo:
			v = bool(x)
		}
		if lists[e.name] {
			list, _ := out[e.name].([]any) // none is an empty one
			out[e.name] = append(list, v)
			continue
		}
		out[e.name] = v
	}
}

// run carries out a command.
func (b *Box) run(command string, a *args) (answer, *fault) {
	if f, ok := reads[command]; ok {
		return f(b, a)
	}
	f, ok := writes[command]
	if !ok {
		return nil, &fault{http.StatusNotFound, "Unknown command " + command}
	}
	if b.left == 0 {
		if b.unheard {
			b.unheard = false
			b.writes++
			_, _ = f(b, a) // nobody hears of it
		}
		panic(http.ErrAbortHandler) // the box is gone; its lock goes with a defer
	}
	b.left--
	b.writes++
	b.commands = append(b.commands, command)
	return f(b, a)
}
