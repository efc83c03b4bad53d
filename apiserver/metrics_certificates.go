package apiserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caravanserai/cara/apiserver/state"
	carav1 "github.com/caravanserai/cara/gen/cara/v1"
)

// certificates exports what is stored about the certificates that the server obtains.
type certificates struct {
	db         *state.DB
	count, end *prometheus.Desc
}

func newCertificates(db *state.DB) certificates {
	return certificates{
		db:    db,
		count: prometheus.NewDesc("cara_certificates", "Hosts whose certificates the server obtains, by state.", []string{"state"}, nil),
		end:   prometheus.NewDesc("cara_certificate_earliest_end_timestamp_seconds", "The earliest end of a certificate that the server has obtained.", nil, nil),
	}
}

// States of certificates in metrics.
const (
	certificateValid   = "valid"
	certificateWarned  = "renewal_failed" // it is valid, and could not be renewed yet
	certificateRecall  = "recalled"       // it is valid, and the authority wants it to be replaced at once
	certificateEnded   = "expired"
	certificateMissing = "missing"
)

// Describe implements prometheus.Collector.
func (c certificates) Describe(out chan<- *prometheus.Desc) {
	out <- c.count
	out <- c.end
}

// Collect implements prometheus.Collector.
func (c certificates) Collect(out chan<- prometheus.Metric) {
	now, count := c.db.Now(), map[string]int{certificateValid: 0, certificateWarned: 0, certificateRecall: 0, certificateEnded: 0, certificateMissing: 0}
	var earliest time.Time
	orders, _ := state.List[*carav1.CertificateOrder](c.db.Cache, "", "")
	for _, o := range orders {
		count[certificateState(o, now)]++
		if end := o.GetNotAfter(); end != nil && (earliest.IsZero() || end.AsTime().Before(earliest)) {
			earliest = end.AsTime()
		}
	}
	for name, n := range count {
		out <- prometheus.MustNewConstMetric(c.count, prometheus.GaugeValue, float64(n), name)
	}
	if !earliest.IsZero() {
		out <- prometheus.MustNewConstMetric(c.end, prometheus.GaugeValue, float64(earliest.Unix()))
	}
}

func certificateState(o *carav1.CertificateOrder, now time.Time) string {
	switch {
	case o.GetNotAfter() == nil:
		return certificateMissing
	case !now.Before(o.GetNotAfter().AsTime()):
		return certificateEnded
	case o.GetRecalled():
		return certificateRecall
	case o.GetProblem() != "":
		return certificateWarned
	}
	return certificateValid
}
