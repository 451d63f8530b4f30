module github.com/aovlb/aovlb

go 1.26
