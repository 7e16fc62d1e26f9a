// Asks an external scaler all that KEDA asks it, by KEDA's own client, and prints the answers as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type answers struct {
	Active   bool               `json:"active"`
	Streamed bool               `json:"streamed"`
	Targets  map[string]float64 `json:"targets"`
	Metrics  map[string]float64 `json:"metrics"`
	Errors   map[string]string  `json:"errors"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "keda-client ADDRESS NAMESPACE NAME")
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	told := ask(ctx, pb.NewExternalScalerClient(connection), &pb.ScaledObjectRef{
		Name:           "a-scaled-object",
		Namespace:      os.Args[2],
		ScalerMetadata: map[string]string{"name": os.Args[3]},
	})
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(ctx context.Context, client pb.ExternalScalerClient, ref *pb.ScaledObjectRef) answers {
	told := answers{Targets: map[string]float64{}, Metrics: map[string]float64{}, Errors: map[string]string{}}
	failed := func(call string, err error) bool {
		if err != nil {
			told.Errors[call] = fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message())
		}
		return err != nil
	}
	if active, err := client.IsActive(ctx, ref); !failed("IsActive", err) {
		told.Active = active.Result
	}
	if stream, err := client.StreamIsActive(ctx, ref); !failed("StreamIsActive", err) {
		if active, err := stream.Recv(); !failed("StreamIsActive", err) {
			told.Streamed = active.Result
		}
	}
	specs, err := client.GetMetricSpec(ctx, ref)
	if failed("GetMetricSpec", err) {
		return told
	}
	for _, spec := range specs.MetricSpecs {
		told.Targets[spec.MetricName] = spec.TargetSizeFloat
		metrics, err := client.GetMetrics(ctx, &pb.GetMetricsRequest{ScaledObjectRef: ref, MetricName: spec.MetricName})
		if failed("GetMetrics", err) {
			continue
		}
		for _, metric := range metrics.MetricValues {
			told.Metrics[metric.MetricName] = metric.MetricValueFloat
		}
	}
	return told
}
