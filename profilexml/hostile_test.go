package profilexml

import (
	"strings"
	"testing"
	"time"
)

// hostileProfiles are files of about that size that have something in large
// numbers, so that what looks at each with each of the others would never end.
func hostileProfiles(size int) map[string]string {
	fill := func(head, piece, tail string) string {
		return head + strings.Repeat(piece, max((size-len(head)-len(tail))/len(piece), 1)) + tail
	}
	native := "<VPNProfile><NativeProfile><Servers>"
	after := "</Servers><RoutingPolicyType>SplitTunnel</RoutingPolicyType><NativeProtocolType>IKEv2</NativeProtocolType><DisableClassBasedDefaultRoute>true</DisableClassBasedDefaultRoute></NativeProfile>"
	route := "<Route><Address>10.0.0.1</Address><PrefixSize>8</PrefixSize></Route>"
	rule := "<DomainNameInformation><DomainName>.a.b.c.d.e.f</DomainName><DnsServers>10.0.0.1, 10.0.0.2</DnsServers></DomainNameInformation>"
	half := strings.Repeat(route, size/2/len(route))
	return map[string]string{
		"routes":        fill(native+after, route, "</VPNProfile>"),
		"servers":       fill(native, "10.1.2.3,", after+half+"</VPNProfile>"),
		"names":         fill(native+strings.Repeat("v.a.b.c.d.e.f,", size/40)+after+half, rule, "</VPNProfile>"),
		"comments":      fill("<VPNProfile>", "<!-- x -->", "</VPNProfile>"),
		"unknown":       fill("<VPNProfile>", "<AlwaysOnn/>", "</VPNProfile>"),
		"misplaced":     fill("<VPNProfile><NativeProfile>", "<DnsSuffix>a</DnsSuffix>", "</NativeProfile></VPNProfile>"),
		"wrong case":    fill("<VPNProfile>", "<route/>", "</VPNProfile>"),
		"out of order":  fill("<VPNProfile>", "<Route/><AlwaysOn>True</AlwaysOn>", "</VPNProfile>"),
		"strays":        fill("<VPNProfile>", ">\n<Route/>", "</VPNProfile>"),
		"prefixes":      fill("<VPNProfile>", "<Route xmlns:a='b' a:x='1'/>", "</VPNProfile>"),
		"deep":          fill(strings.Repeat("<a xmlns:p='q'>", 60), "<p:b/>", strings.Repeat("</a>", 60)),
		"attributes":    fill("<VPNProfile>", "<Route "+manyAttributes()+"/>", "</VPNProfile>"),
		"references":    fill("<VPNProfile><DnsSuffix>", "&amp;", "</DnsSuffix></VPNProfile>"),
		"CDATA":         fill("<VPNProfile><DnsSuffix>", "<![CDATA[,]]>", "</DnsSuffix></VPNProfile>"),
		"one line":      fill("<VPNProfile>", "<AppTrigger><App><Id>x</Id></App></AppTrigger>", "</VPNProfile>"),
		"lines":         fill("<VPNProfile>", "\r\n<AlwaysOn/>", "</VPNProfile>"),
		"wrong spaces":  fill("<VPNProfile><NativeProfile><Authentication><Eap><Configuration>", "<EapHostConfig xmlns='https://www.microsoft.com/provisioning/EapHostConfig'/>", "</Configuration></Eap></Authentication></NativeProfile></VPNProfile>"),
		"thumbprints":   fill("<VPNProfile><NativeProfile><Authentication><Eap><Configuration><EapHostConfig xmlns='"+eapHostSpace+"'><Config><Eap xmlns='"+eapBaseSpace+"'><Type>13</Type><EapType xmlns='"+eapTLSSpace+"'><ServerValidation>", "<TrustedRootCA>AA</TrustedRootCA>", "</ServerValidation></EapType></Eap></Config></EapHostConfig></Configuration></Eap></Authentication></NativeProfile></VPNProfile>"),
		"open elements": strings.Repeat("<a>", size/3),
		"open comment":  fill("<a>", "<!-", ""),
	}
}

func manyAttributes() string {
	var s strings.Builder
	for c := 'a'; c <= 'z'; c++ {
		s.WriteString(string(c) + "='1' ")
	}
	return s.String()
}

// TestHostile: nothing that a file has many of takes more than its share. Each
// step gets generous time for 128 KiB; what is quadratic needs minutes.
func TestHostile(t *testing.T) {
	for name, text := range hostileProfiles(128 << 10) {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			lap := func(what string) {
				t.Helper()
				if d := time.Since(start); d > 20*time.Second {
					t.Errorf("to %s takes %v", what, d)
				} else {
					t.Logf("%s: %v", what, d)
				}
				start = time.Now()
			}
			d, err := ParseString(text)
			lap("read")
			if err != nil {
				return
			}
			c := &Checker{Beside: []*Document{d}}
			c.Check(d)
			lap("check")
			fixed, _, err := c.Fix(d)
			lap("fix")
			if err != nil {
				t.Logf("fixing gave up: %v", err)
			}
			Diff(d, fixed, DiffOptions{Exact: true})
			lap("compare")
			Format(d, EditorStyle())
			lap("format")
			_, _ = d.Profile() // what it makes of it is for other tests
			lap("turn into a Profile")
		})
	}
}
