package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/plugins/builtin"
)

// certificateMetrics collects what is known of certificates.
type certificateMetrics struct{ driver *builtin.Driver }

var (
	descCertEnds = prometheus.NewDesc("aovlb_certificate_not_after_timestamp_seconds",
		"When a leaf that is held ends, as Unix time.", []string{"certificate", "sha256"}, nil)
	descCertDoubt = prometheus.NewDesc("aovlb_certificate_doubt",
		"1 for a gateway whose clients would be cut off, or soon will be, because of its certificate; otherwise 0.", []string{"certificate", "gateway"}, nil)
	descCertRefused = prometheus.NewDesc("aovlb_certificate_refused_total",
		"TLS handshakes refused because no leaf is known that the gateway expects.", []string{"certificate", "gateway"}, nil)
	descCertServed = prometheus.NewDesc("aovlb_certificate_served_total",
		"TLS handshakes that were given a leaf.", []string{"certificate", "sha256"}, nil)
	descRenewal = prometheus.NewDesc("aovlb_renewal_phase",
		"How far a gateway is in the last renewal: 0 waiting, 1 draining, 2 emptying, 3 setting, 4 verifying, 5 returning, 6 done.", []string{"certificate", "gateway"}, nil)
	descRenewalAge = prometheus.NewDesc("aovlb_renewal_unfinished_seconds",
		"For how long a renewal has not been finished; 0 if none is under way.", []string{"certificate"}, nil)
)

// Describe says what Collect collects.
func (certificateMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCertEnds, descCertDoubt, descCertRefused, descCertServed, descRenewal, descRenewalAge} {
		ch <- d
	}
}

// Collect reads the driver.
func (m certificateMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, c := range m.driver.Certificates() {
		for _, l := range c.Ring.Leaves {
			gauge(descCertEnds, float64(l.NotAfter.Unix()), c.Name, l.SHA256.String())
			counter(descCertServed, l.Served, c.Name, l.SHA256.String())
		}
		doubted := make(map[string]bool)
		for _, d := range c.Doubts {
			doubted[d.Gateway] = true
			gauge(descCertDoubt, 1, c.Name, d.Gateway)
		}
		for _, g := range c.Ring.Gateways {
			if !doubted[g.Gateway] {
				gauge(descCertDoubt, 0, c.Name, g.Gateway)
			}
			counter(descCertRefused, g.Refused, c.Name, g.Gateway)
		}
		age := 0.0
		if r := c.Renewal; r != nil {
			for _, g := range r.Gateways {
				gauge(descRenewal, float64(g.Phase), c.Name, g.Gateway)
			}
			if r.Ended.IsZero() {
				age = time.Since(r.Began).Seconds()
			}
		}
		gauge(descRenewalAge, age, c.Name)
	}
}
