module github.com/aovlb/aovlb

go 1.26.0

require (
	golang.org/x/sys v0.49.0
	layeh.com/radius v0.0.0-20231213012653-1006025d24f8
)
