//! A pod as the API server writes it, without blanks: about 4 kB, of which a fifth is who set which field.

use std::fmt::Write;

/// The label of the cluster that all pods here have.
pub const CLUSTER: &str = "orders";

/// What a pod is like.
#[derive(Clone, Copy)]
pub struct Pod {
    pub number: usize,
    /// Its life: another uid, and an address of its own.
    pub life: usize,
    /// The version of the object.
    pub version: u64,
    /// What stands in a label of ours, and so in the node's metadata.
    pub round: u64,
    pub ready: bool,
}

impl Pod {
    /// A pod that is ready.
    pub fn new(number: usize) -> Self {
        Self { number, life: 1, version: 1, round: 0, ready: true }
    }

    pub fn name(&self) -> String {
        format!("orders-7d9c6bb4f8-{:06}", self.number)
    }

    /// Appends the pod.
    pub fn write(&self, text: &mut String) {
        let Self { number, life, version, round, ready } = *self;
        let (a, b, c) = (number >> 14 & 255, number >> 7 & 127, (number & 127) + 128 * (life & 1));
        let zone = ["a", "b", "c"][number % 3];
        let ready = if ready { "True" } else { "False" };
        let (set, at) =
            (r#""f:type":{},"f:status":{},"f:lastProbeTime":{},"f:lastTransitionTime":{}"#, "2026-05-04T08:15:30Z");
        _ = write!(
            text,
            concat!(
                r#"{{"metadata":{{"name":"orders-7d9c6bb4f8-{number:06}","generateName":"orders-7d9c6bb4f8-","#,
                r#""namespace":"default","uid":"5b6c7d8e-9fa0-4b1c-8d2e-{life:04x}{number:08x}","resourceVersion":"{version}","#,
                r#""creationTimestamp":"{at}","labels":{{"app.kubernetes.io/component":"backend","#,
                r#""app.kubernetes.io/instance":"orders-production","app.kubernetes.io/name":"orders","#,
                r#""cluster.proto.actor/cluster":"orders","cluster.proto.actor/kind-customer":"true","#,
                r#""cluster.proto.actor/kind-order":"true","cluster.proto.actor/port":"8090","#,
                r#""cluster.proto.actor/round":"{round}","cluster.proto.actor/zone":"eu-central-1{zone}","#,
                r#""pod-template-hash":"7d9c6bb4f8"}},"annotations":{{"checksum/config":"9f86d081884c7d659a2feaa0c55ad015","#,
                r#""prometheus.io/path":"/metrics","prometheus.io/port":"9090","prometheus.io/scrape":"true"}},"#,
                r#""ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"orders-7d9c6bb4f8","#,
                r#""uid":"0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b","controller":true,"blockOwnerDeletion":true}}],"#,
                r#""managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","#,
                r#""time":"{at}","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:annotations":{{".":{{}},"#,
                r#""f:checksum/config":{{}},"f:prometheus.io/scrape":{{}}}},"f:generateName":{{}},"f:labels":{{".":{{}},"#,
                r#""f:app.kubernetes.io/name":{{}},"f:pod-template-hash":{{}}}},"f:ownerReferences":{{".":{{}},"#,
                r#""k:{{\"uid\":\"0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b\"}}":{{".":{{}},"f:apiVersion":{{}},"f:name":{{}}}}}}}},"#,
                r#""f:spec":{{"f:containers":{{"k:{{\"name\":\"main\"}}":{{".":{{}},"f:image":{{}},"f:imagePullPolicy":{{}},"#,
                r#""f:name":{{}},"f:ports":{{}},"f:resources":{{}}}}}},"f:dnsPolicy":{{}},"f:restartPolicy":{{}}}}}}}},"#,
                r#"{{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"{at}","fieldsType":"FieldsV1","#,
                r#""fieldsV1":{{"f:status":{{"f:conditions":{{"k:{{\"type\":\"ContainersReady\"}}":{{".":{{}},{set}}},"#,
                r#""k:{{\"type\":\"Ready\"}}":{{".":{{}},{set}}}}},"f:containerStatuses":{{}},"f:hostIP":{{}},"f:phase":{{}},"#,
                r#""f:podIP":{{}},"f:podIPs":{{}},"f:startTime":{{}}}}}}}}]}},"#,
                r#""spec":{{"volumes":[{{"name":"config","configMap":{{"name":"orders-config","defaultMode":420}}}},"#,
                r#"{{"name":"tmp","emptyDir":{{}}}}],"containers":[{{"name":"main","#,
                r#""image":"registry.example.com/shop/orders:2.14.3","args":["--config","/etc/orders/config.yaml"],"#,
                r#""ports":[{{"name":"cluster","containerPort":8090,"protocol":"TCP"}},{{"name":"metrics","containerPort":9090,"#,
                r#""protocol":"TCP"}}],"env":[{{"name":"POD_NAME","valueFrom":{{"fieldRef":{{"apiVersion":"v1","#,
                r#""fieldPath":"metadata.name"}}}}}},{{"name":"RUST_LOG","value":"info"}}],"#,
                r#""resources":{{"limits":{{"cpu":"2","memory":"2Gi"}},"requests":{{"cpu":"500m","memory":"1Gi"}}}},"#,
                r#""volumeMounts":[{{"name":"config","readOnly":true,"mountPath":"/etc/orders"}},{{"name":"tmp","mountPath":"/tmp"}}],"#,
                r#""readinessProbe":{{"httpGet":{{"path":"/ready","port":9090,"scheme":"HTTP"}},"timeoutSeconds":1,"#,
                r#""periodSeconds":5,"successThreshold":1,"failureThreshold":3}},"terminationMessagePath":"/dev/termination-log","#,
                r#""terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","#,
                r#""terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"orders","#,
                r#""serviceAccount":"orders","nodeName":"ip-10-1-{b}-20.eu-central-1.compute.internal","securityContext":{{}},"#,
                r#""schedulerName":"default-scheduler","tolerations":[{{"key":"node.kubernetes.io/not-ready","#,
                r#""operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"#,
                r#""status":{{"phase":"Running","conditions":[{{"type":"Initialized","status":"True","lastProbeTime":null,"#,
                r#""lastTransitionTime":"{at}"}},{{"type":"Ready","status":"{ready}","lastProbeTime":null,"#,
                r#""lastTransitionTime":"{at}"}},{{"type":"ContainersReady","status":"{ready}","lastProbeTime":null,"#,
                r#""lastTransitionTime":"{at}"}},{{"type":"PodScheduled","status":"True","lastProbeTime":null,"#,
                r#""lastTransitionTime":"{at}"}}],"hostIP":"10.1.{b}.20","podIP":"10.{a}.{b}.{c}","#,
                r#""podIPs":[{{"ip":"10.{a}.{b}.{c}"}}],"startTime":"{at}","containerStatuses":[{{"name":"main","#,
                r#""state":{{"running":{{"startedAt":"{at}"}}}},"lastState":{{}},"ready":true,"restartCount":0,"#,
                r#""image":"registry.example.com/shop/orders:2.14.3","#,
                r#""imageID":"registry.example.com/shop/orders@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","#,
                r#""containerID":"containerd://2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e88{number:08x}","started":true}}],"#,
                r#""qosClass":"Burstable"}}}}"#,
            ),
            a = a,
            b = b,
            c = c,
            at = at,
            life = life,
            number = number,
            ready = ready,
            round = round,
            set = set,
            version = version,
            zone = zone,
        );
    }

    /// The line of a watch that says what happened to it.
    pub fn line(&self, kind: &str) -> String {
        let mut line = format!(r#"{{"type":"{kind}","object":{{"kind":"Pod","apiVersion":"v1","#);
        let head = line.len();
        self.write(&mut line);
        // The kind comes first in an object, as a part of it.
        line.remove(head);
        line.push_str("}\n");
        line
    }
}

/// Appends the page with those pods; `more` of them are to come.
pub fn write_page(text: &mut String, pods: std::ops::Range<usize>, more: usize, version: u64, life: usize) {
    _ = write!(text, r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{version}""#);
    if more > 0 {
        _ = write!(text, r#","continue":"{}","remainingItemCount":{more}"#, pods.end);
    }
    text.push_str(r#"},"items":["#);
    for number in pods.clone() {
        if number > pods.start {
            text.push(',');
        }
        Pod { life, ..Pod::new(number) }.write(text);
    }
    text.push_str("]}\n");
}
