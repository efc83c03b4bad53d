package syntax

import (
	"fmt"
	"math"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// ParseDuration parses a duration in a spec, such as `30s`. An empty s is def. A negative duration is an error.
func ParseDuration(s string, def time.Duration) (time.Duration, error) {
	if s == "" {
		return def, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: write a number with a unit, such as 30s, 5m or 1h30m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative: write a duration of 0s or more", s)
	}
	return d, nil
}

// MilliCPU parses a CPU quantity, such as `500m` or `2`, as thousandths of a core, rounded up; 0 if q is empty.
func MilliCPU(q string) (int64, error) {
	v, err := ParseQuantity(q, "500m or 2")
	if err != nil {
		return 0, err
	}
	if v.Cmp(*resource.NewQuantity(math.MaxInt64/1000, resource.DecimalSI)) > 0 {
		return 0, fmt.Errorf("%q is more cores than can be counted", q)
	}
	return v.MilliValue(), nil
}

// Bytes parses a quantity of memory or disk, such as `128Mi` or `1G`, as bytes, rounded up; 0 if q is empty.
func Bytes(q string) (int64, error) {
	v, err := ParseQuantity(q, "128Mi or 1G")
	if err != nil {
		return 0, err
	}
	if v.Cmp(*resource.NewQuantity(math.MaxInt64, resource.BinarySI)) > 0 {
		return 0, fmt.Errorf("%q is more bytes than can be counted", q)
	}
	return v.Value(), nil
}

// maxQuantity limits the length that the quantity parser accepts. No valid quantity is longer.
const maxQuantity = 32

// ParseQuantity parses a quantity of 0 or more. The error of another text gives the example.
func ParseQuantity(q, example string) (resource.Quantity, error) {
	if q == "" {
		return resource.Quantity{}, nil
	}
	if len(q) > maxQuantity {
		return resource.Quantity{}, fmt.Errorf("%.40q... is no quantity: it is longer than %d characters", q, maxQuantity)
	}
	if hugeExponent(q) {
		return resource.Quantity{}, fmt.Errorf("%q is out of range: write a quantity such as %s", q, example)
	}
	v, err := resource.ParseQuantity(q)
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("%q is no quantity: write one such as %s", q, example)
	}
	if v.Sign() < 0 {
		return resource.Quantity{}, fmt.Errorf("%q is negative: write a quantity of 0 or more", q)
	}
	return v, nil
}

// hugeExponent finds quantities such as 1e999999999, which the parser would expand digit by digit.
func hugeExponent(q string) bool {
	i := strings.IndexAny(q, "eE")
	if i < 0 || i+1 == len(q) {
		return false
	}
	digits := strings.TrimLeft(q[i+1:], "+-0")
	return len(digits) > 2
}
