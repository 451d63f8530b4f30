package main

import (
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/geo"
)

// geoMetrics collects what the DNS server does.
type geoMetrics struct{ server *geoServer }

var (
	descGeoSite = prometheus.NewDesc("aovlb_geo_site_status",
		"1 for the state that the site is in (up, down, unknown), 0 for the others.", []string{"site", "state"}, nil)
	descGeoClosed = prometheus.NewDesc("aovlb_geo_site_admin",
		"1 while an administrator has the site drained or forced, else 0.", []string{"site"}, nil)
	descGeoFailovers = prometheus.NewDesc("aovlb_geo_site_failovers_total",
		"Times that the site went from up to down.", []string{"site"}, nil)
	descGeoLoad = prometheus.NewDesc("aovlb_geo_site_load_ratio",
		"Part of the site's capacity that is used. Absent if it isn't known.", []string{"site"}, nil)
	descGeoGateway = prometheus.NewDesc("aovlb_geo_gateway_up",
		"1 while the gateway's checks pass, else 0.", []string{"site", "gateway"}, nil)
	descGeoAnswers = prometheus.NewDesc("aovlb_geo_answers_total",
		"Answers for the name by site. Without a site are those with several sites or none.", []string{"name", "site"}, nil)
	descGeoCountries = prometheus.NewDesc("aovlb_geo_country_answers_total",
		"Answers for names by the country of whom they were for; empty if that isn't known.", []string{"country"}, nil)
	descGeoPeer = prometheus.NewDesc("aovlb_geo_peer_up",
		"1 while the peer can be asked, else 0.", []string{"peer"}, nil)
	descDNSQueries = prometheus.NewDesc("aovlb_dns_queries_total",
		"Queries by how they came: udp, tcp.", []string{"transport"}, nil)
	descDNSSubnets = prometheus.NewDesc("aovlb_dns_client_subnet_queries_total",
		"Queries for geo names that told the client's subnet.", nil, nil)
	descDNSResponses = prometheus.NewDesc("aovlb_dns_responses_total",
		"Responses by their code.", []string{"rcode"}, nil)
	descDNSTruncated = prometheus.NewDesc("aovlb_dns_truncated_total",
		"Responses that had the client use TCP.", nil, nil)
	descDNSDropped = prometheus.NewDesc("aovlb_dns_dropped_total",
		"Queries without a response, by reason: malformed, limited, unsent.", []string{"reason"}, nil)
	descDNSStreams = prometheus.NewDesc("aovlb_dns_streams_total",
		"TCP connections accepted.", nil, nil)
	descDNSEvicted = prometheus.NewDesc("aovlb_dns_streams_evicted_total",
		"TCP connections closed to make room for others.", nil, nil)
)

// Describe says what Collect collects.
func (geoMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descGeoSite, descGeoClosed, descGeoFailovers, descGeoLoad, descGeoGateway, descGeoAnswers, descGeoCountries, descGeoPeer,
		descDNSQueries, descDNSSubnets, descDNSResponses, descDNSTruncated, descDNSDropped, descDNSStreams, descDNSEvicted,
	} {
		ch <- d
	}
}

// Collect reads the server.
func (m geoMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	st := m.server.status()
	for _, s := range st.Sites {
		for _, state := range []geo.State{geo.Up, geo.Down, geo.Unknown} {
			gauge(descGeoSite, one(s.State == state.String()), s.Name, state.String())
		}
		gauge(descGeoClosed, one(s.Admin != ""), s.Name)
		counter(descGeoFailovers, s.Failovers, s.Name)
		if s.Load != nil {
			gauge(descGeoLoad, *s.Load, s.Name)
		}
		for _, g := range s.Gateways {
			gauge(descGeoGateway, one(g.State == geo.Up.String()), s.Name, g.Name)
		}
	}
	for _, n := range st.Names {
		for site, count := range n.Answers {
			counter(descGeoAnswers, count, n.Name, site)
		}
	}
	for country, count := range st.DNS.Countries {
		counter(descGeoCountries, count, country)
	}
	for _, p := range st.Peers {
		gauge(descGeoPeer, one(p.Error == ""), p.URL)
	}
	d := &st.DNS
	counter(descDNSQueries, d.UDP, "udp")
	counter(descDNSQueries, d.TCP, "tcp")
	counter(descDNSSubnets, d.Subnets)
	for code, count := range d.RCodes {
		counter(descDNSResponses, count, rcode(code))
	}
	counter(descDNSTruncated, d.Truncated)
	counter(descDNSDropped, d.Dropped, "malformed")
	counter(descDNSDropped, d.Limited, "limited")
	counter(descDNSDropped, d.Unsent, "unsent")
	counter(descDNSStreams, d.Streams)
	counter(descDNSEvicted, d.Evicted)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// rcode names a response code.
func rcode(code int) string {
	if code == dns.RcodeBadVers { // which the library calls by another of its names
		return "badvers"
	}
	if s := dns.RcodeToString[code]; s != "" {
		return strings.ToLower(s)
	}
	return strconv.Itoa(code)
}
