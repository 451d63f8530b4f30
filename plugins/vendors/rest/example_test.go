package rest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/plugins/vendors/rest"
)

// Three calls at 100 a second take 20 ms.
func ExamplePace() {
	p := rest.Pace{PerSecond: 100}
	start := time.Now()
	for range 3 {
		if err := p.Wait(context.Background()); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(time.Since(start) >= 20*time.Millisecond)
	// Output: true
}
