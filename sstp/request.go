package sstp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The head of HTTP in both directions (MS-SSTP §3.2.4.1, §4.1). After it both
// sides send packets until the connection ends, which is why both announce a body
// of 2^64-1 bytes. Most HTTP libraries refuse that number, net/http too.

const (
	// Method is the method of a client that asks for a tunnel.
	Method = "SSTP_DUPLEX_POST"
	// ContentLength is the length that both sides announce.
	ContentLength = "18446744073709551615"
	// PathIPHTTPS is the resource that DirectAccess clients ask for by POST, to
	// send IPv6 in HTTPS (MS-IPHTTPS §2.1). The specification says PathIPTLS;
	// Windows sends this one.
	PathIPHTTPS = "/IPHTTPS"
	// PathIPTLS is what the specification says instead.
	PathIPTLS = "/IPTLS"
	// MaxHead bounds a head, in either direction. Those of Windows have some 150
	// to 300 bytes.
	MaxHead = maxHead
)

// ErrHead says that bytes aren't the head of an HTTP/1 request.
var ErrHead = errors.New("sstp: not the head of an HTTP/1 request")

// A Request is the head of a request, as far as it matters here.
type Request struct {
	// Method and Target are as they were sent.
	Method, Target string
	// Minor is the version of HTTP: 1 for HTTP/1.1.
	Minor int
	// Host is the first Host field.
	Host string
	// CorrelationID is the first SSTPCORRELATIONID field: what Windows clients
	// write as CoId into their event log. It is often a GUID in braces, but not
	// with all clients a right one.
	CorrelationID string
	// Length is the first Content-Length field.
	Length string
}

// ParseRequest reads the head at the start of b, and says how many bytes it has,
// the empty line included. The error is ErrShort if b doesn't hold all of it, and
// wraps ErrHead if it is none or longer than MaxHead. Of the fields only those are
// read that Request has; others may be anything.
func ParseRequest(b []byte) (r Request, n int, err error) {
	if !couldBeRequest(b) {
		return r, 0, ErrHead
	}
	n = headEnd(b[:min(len(b), MaxHead)])
	if n < 0 {
		if len(b) >= MaxHead {
			return r, 0, fmt.Errorf("%w: it is over %d bytes", ErrHead, MaxHead)
		}
		return r, 0, ErrShort
	}
	line, rest, _ := bytes.Cut(b[:n], []byte("\n"))
	words := bytes.Split(bytes.TrimSuffix(line, []byte("\r")), []byte(" "))
	if len(words) != 3 || len(words[0]) == 0 || len(words[1]) == 0 || len(words[2]) != len("HTTP/1.1") ||
		!bytes.HasPrefix(words[2], []byte("HTTP/1.")) {
		return r, 0, fmt.Errorf("%w: request line %.80q", ErrHead, line)
	}
	r.Minor = int(words[2][len("HTTP/1.")]) - '0'
	if r.Minor < 0 || r.Minor > 9 {
		return r, 0, fmt.Errorf("%w: request line %.80q", ErrHead, line)
	}
	r.Method, r.Target = string(words[0]), string(words[1])
	for name, value := range fields(rest) {
		switch {
		case r.Host == "" && bytes.EqualFold(name, []byte("Host")):
			r.Host = string(value)
		case r.CorrelationID == "" && bytes.EqualFold(name, []byte("SSTPCORRELATIONID")):
			r.CorrelationID = string(value)
		case r.Length == "" && bytes.EqualFold(name, []byte("Content-Length")):
			r.Length = string(value)
		}
	}
	return r, n, nil
}

// couldBeRequest reports whether b may be the beginning of an HTTP request: a
// method is of letters, digits and a few other characters (RFC 9110 §5.6.2).
func couldBeRequest(b []byte) bool {
	for i, c := range b[:min(len(b), 32)] {
		switch {
		case c == ' ':
			return i > 0
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_', c == '-', c >= '0' && c <= '9':
		default:
			return false
		}
	}
	return len(b) < 32
}

// fields yields the names and values of the fields of a head.
func fields(b []byte) func(func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		for len(b) > 0 {
			var line []byte
			line, b, _ = bytes.Cut(b, []byte("\n"))
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) == 0 {
				return
			}
			name, value, _ := bytes.Cut(line, []byte(":"))
			if !yield(name, bytes.TrimSpace(value)) {
				return
			}
		}
	}
}

// Append appends the head to b.
func (r *Request) Append(b []byte) []byte {
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1."...)
	b = strconv.AppendInt(b, int64(r.Minor), 10)
	b = append(b, "\r\n"...)
	b = appendField(b, "SSTPCORRELATIONID", r.CorrelationID)
	b = appendField(b, "Content-Length", r.Length)
	b = appendField(b, "Host", r.Host)
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// TunnelRequest returns the Request by which a client asks host for a tunnel.
func TunnelRequest(host, correlationID string) Request {
	return Request{Method: Method, Target: Path, Minor: 1, Host: host, CorrelationID: correlationID, Length: ContentLength}
}

// A Resource says what a Request asks for.
type Resource uint8

const (
	// ResourceOther is anything else: a web site, say.
	ResourceOther Resource = iota
	// ResourceSSTP is the resource of SSTP: a tunnel, if the method is Method;
	// otherwise a probe of a monitor, which only the gateway can answer.
	ResourceSSTP
	// ResourceIPHTTPS is that of DirectAccess.
	ResourceIPHTTPS
)

func (r Resource) String() string {
	switch r {
	case ResourceSSTP:
		return "SSTP"
	case ResourceIPHTTPS:
		return "IP-HTTPS"
	}
	return "other"
}

// MarshalText returns the Resource as String does.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Resource says what r asks for. As Windows' HTTP.sys does, it looks at the path
// without its query, in either case, with braces as they are or escaped.
func (r *Request) Resource() Resource {
	path, _, _ := strings.Cut(r.Target, "?")
	if at := strings.Index(path, "://"); at >= 0 { // the absolute form of a proxy
		_, path, _ = strings.Cut(path[at+3:], "/")
		path = "/" + path
	}
	path = braces.Replace(path)
	switch {
	case strings.EqualFold(strings.TrimSuffix(path, "/"), strings.TrimSuffix(Path, "/")):
		return ResourceSSTP
	case strings.EqualFold(path, PathIPHTTPS), strings.EqualFold(path, PathIPTLS):
		return ResourceIPHTTPS
	}
	return ResourceOther
}

var braces = strings.NewReplacer("%7B", "{", "%7b", "{", "%7D", "}", "%7d", "}")

// Tunnel reports whether r asks for a tunnel.
func (r *Request) Tunnel() bool { return r.Method == Method && r.Resource() == ResourceSSTP }

// A Response is the head of an answer, as far as it matters here.
type Response struct {
	Status int
	// Reason is the phrase after the status; Windows sends none.
	Reason string
	// Server is the first Server field.
	Server string
	// Length is the first Content-Length field.
	Length string
	// Date is the first Date field.
	Date string
}

// ParseResponse reads the head at the start of b, as [ParseRequest] does one of a
// request.
func ParseResponse(b []byte) (r Response, n int, err error) {
	if !couldBeHTTP(b) {
		return r, 0, errNotHTTP
	}
	n = headEnd(b[:min(len(b), MaxHead)])
	if n < 0 {
		if len(b) >= MaxHead {
			return r, 0, fmt.Errorf("%w: its head is over %d bytes", errNotHTTP, MaxHead)
		}
		return r, 0, ErrShort
	}
	line, rest, _ := bytes.Cut(b[:n], []byte("\n"))
	if r.Status, r.Reason, err = parseStatusLine(bytes.TrimSuffix(line, []byte("\r"))); err != nil {
		return Response{}, 0, err
	}
	for name, value := range fields(rest) {
		switch {
		case r.Server == "" && bytes.EqualFold(name, []byte("Server")):
			r.Server = string(value)
		case r.Length == "" && bytes.EqualFold(name, []byte("Content-Length")):
			r.Length = string(value)
		case r.Date == "" && bytes.EqualFold(name, []byte("Date")):
			r.Date = string(value)
		}
	}
	return r, n, nil
}

// Append appends the head to b. As with Windows, there is neither a phrase nor
// the space before it if Reason is empty.
func (r *Response) Append(b []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	if r.Reason != "" {
		b = append(append(b, ' '), r.Reason...)
	}
	b = append(b, "\r\n"...)
	b = appendField(b, "Content-Length", r.Length)
	b = appendField(b, "Server", r.Server)
	b = appendField(b, "Date", r.Date)
	return append(b, "\r\n"...)
}
