// Package mmdb reads MaxMind databases: GeoIP2 and GeoLite2 of cities, countries
// and autonomous systems, DB-IP's, and those that others make in the same form.
// A [File] is a [geo.Locator] that can be exchanged while it is in use.
package mmdb
