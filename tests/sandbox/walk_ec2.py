"""Calls the EC2 and STS operations of the sandbox with boto3, and expects AWS's answers, including errors."""

import json, urllib.request, urllib.error
import boto3, botocore
from botocore.config import Config
from botocore.exceptions import ClientError
from control import URL, advance, dump

ROLE = "arn:aws:iam::123456789012:role/PlatformAdmin"
OTHER_ROLE = "arn:aws:iam::210987654321:role/Cross"


def client(svc, region="us-east-1", key="AKIAIOSFODNN7EXAMPLE", token=None):
    return boto3.client(
        svc,
        region_name=region,
        endpoint_url=URL,
        aws_access_key_id=key,
        aws_secret_access_key="x",
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


n_ok = n_err = 0
# The model must know every element of every answer.
import xml.etree.ElementTree as ET
from botocore.parsers import BaseXMLResponseParser

strangers = set()
answered_ops = set()


def names(shape):
    return {m.serialization.get("name", k): m for k, m in shape.members.items()}


def walk(node, shape, path):
    tag = lambda n: n.tag.split("}")[-1]
    if shape is None:
        return
    if shape.type_name == "structure":
        known = names(shape)
        for child in node:
            if tag(child) not in known:
                strangers.add(path + "/" + tag(child))
            else:
                walk(child, known[tag(child)], path + "/" + tag(child))
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "member")
        for child in node:
            if tag(child) != item:
                strangers.add(path + "/" + tag(child) + " (item)")
            else:
                walk(child, shape.member, path + "[]")


old = BaseXMLResponseParser.parse


def parse(self, response, shape):
    if response["status_code"] == 200 and shape is not None:
        root = ET.fromstring(response["body"])
        kids = [k for k in root if k.tag.split("}")[-1].lower() not in ("requestid", "responsemetadata")]
        if (
            len(kids) == 1
            and kids[0].tag.endswith("Result")
            and "iam" + "sts"
            and shape.serialization.get("resultWrapper")
        ):
            root2 = kids[0]
            walk(root2, shape, shape.name)
        else:
            known = names(shape)
            for k in kids:
                t = k.tag.split("}")[-1]
                if t in known:
                    walk(k, known[t], shape.name + "/" + t)
                elif t != "return":
                    strangers.add(shape.name + "/" + t)
        answered_ops.add(shape.name)
    return old(self, response, shape)


BaseXMLResponseParser.parse = parse


def err(code, f, *a, status=400, text=None, **kw):
    global n_err
    try:
        f(*a, **kw)
    except ClientError as e:
        got = e.response["Error"]["Code"]
        assert got == code, f"{got} {e} != {code}"
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == status, e.response
        assert e.response["ResponseMetadata"].get("RequestId"), e.response
        if text:
            assert text in e.response["Error"]["Message"], e
        n_err += 1
        return e
    raise AssertionError(f"{f} {kw} passed, wanted {code}")


def eq(a, b):
    global n_ok
    n_ok += 1
    assert a == b, f"{a!r} != {b!r}"


def ids(l, k):
    return sorted(x[k] for x in l)


ec2 = client("ec2")
before = dump()
T = lambda t, **kw: [{"ResourceType": t, "Tags": [{"Key": k, "Value": v} for k, v in kw.items()]}]
F = lambda **kw: [
    {"Name": k.replace("__", ".").replace("_", "-"), "Values": v if isinstance(v, list) else [v]} for k, v in kw.items()
]

# --- wire
eq(urllib.request.urlopen(URL + "/").read()[:9], b"ringfence")
try:
    urllib.request.urlopen(urllib.request.Request(URL + "/", data=b"Action=DescribeVpcs"))
    assert 0
except urllib.error.HTTPError as e:
    eq((e.code, b"MissingAuthenticationToken" in e.read()), (403, True))
try:
    urllib.request.urlopen(urllib.request.Request(URL + "/", data=b"x", headers={"Authorization": "Basic x"}))
    assert 0
except urllib.error.HTTPError as e:
    eq((e.code, b"IncompleteSignature" in e.read()), (400, True))
err("InvalidAction", ec2.describe_snapshots, text="DescribeSnapshots")
err("InvalidAction", client("sts").get_session_token, text="GetSessionToken")
(
    err(
        "UnknownOperationException",
        boto3.client(
            "s3",
            region_name="us-east-1",
            endpoint_url=URL,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 1}),
        ).list_buckets,
    )
    if 0
    else None
)
err("DryRunOperation", ec2.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True, status=412)

# --- sts
sts = client("sts")
me = sts.get_caller_identity()
eq(me["Account"], "123456789012")
eq(me["Arn"], "arn:aws:iam::123456789012:user/sandbox")
eq(client("sts", key="210987654321").get_caller_identity()["Account"], "210987654321")
c = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
eq(len(c["AccessKeyId"]), 20)
as_role = client("sts", key=c["AccessKeyId"], token=c["SessionToken"])
eq(as_role.get_caller_identity()["Arn"], "arn:aws:sts::123456789012:assumed-role/PlatformAdmin/me")
err("AccessDenied", sts.assume_role, RoleArn=ROLE + "x", RoleSessionName="me", status=403)
err(
    "AccessDenied", sts.assume_role, RoleArn=OTHER_ROLE, RoleSessionName="me", status=403
)  # trusted by its own account only
err("ValidationError", sts.assume_role, RoleArn=ROLE, RoleSessionName="a b")
cx = client("sts", key="210987654321").assume_role(RoleArn=OTHER_ROLE, RoleSessionName="xx")["Credentials"]
eq(client("sts", key=cx["AccessKeyId"]).get_caller_identity()["Account"], "210987654321")
url = sts.generate_presigned_url("get_caller_identity", Params={}, ExpiresIn=60)
eq(b"123456789012" in urllib.request.urlopen(url).read(), True)

# --- places
eq([r["RegionName"] for r in ec2.describe_regions(RegionNames=["us-east-1"])["Regions"]], ["us-east-1"])
assert len(ec2.describe_regions()["Regions"]) >= 17
eq(
    {r["RegionName"] for r in client("ec2", "cn-north-1").describe_regions()["Regions"]},
    {"cn-north-1", "cn-northwest-1"},
)
z = ec2.describe_availability_zones()["AvailabilityZones"]
eq(len(z), 6)
eq(z[0]["State"], "available")
eq(ec2.describe_availability_zones(Filters=F(zone_id="use1-az3"))["AvailabilityZones"][0]["ZoneName"], "us-east-1e")
err("InvalidParameterValue", ec2.describe_availability_zones, ZoneNames=["us-east-1z"])
eq(
    [
        a["AttributeValues"][0]["AttributeValue"]
        for a in ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    ],
    ["none"],
)
eq(ec2.describe_instances()["Reservations"], [])
err("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
o = ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=F(instance_type="m6i.large"))[
    "InstanceTypeOfferings"
]
eq(len(o), 6)
assert len(list(ec2.get_paginator("describe_instance_type_offerings").paginate(PaginationConfig={"PageSize": 100}))) > 2
o = ec2.describe_instance_type_offerings(Filters=F(instance_type=["m77i.large", "m4.large"]))["InstanceTypeOfferings"]
eq([x["InstanceType"] for x in o], ["m4.large"])
t = {x["InstanceType"]: x for x in ec2.describe_instance_types(InstanceTypes=["m7g.large", "g6.xlarge"])["InstanceTypes"]}
eq(t["m7g.large"]["ProcessorInfo"]["SupportedArchitectures"], ["arm64"])
eq(t["g6.xlarge"]["GpuInfo"]["Gpus"][0]["Manufacturer"], "NVIDIA")
eq("GpuInfo" in t["m7g.large"], False)
err("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["m77i.large"])
err("InvalidParameterCombination", ec2.describe_instance_types, InstanceTypes=["m7g.large"], MaxResults=5)
assert len(list(ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 100}))) > 2
eq(ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"], False)

# --- vpc
eq(ec2.describe_vpcs()["Vpcs"], [])
v = ec2.create_vpc(CidrBlock="10.0.7.9/16", TagSpecifications=T("vpc", Name="one", team="a&<b>"))["Vpc"]
V = v["VpcId"]
eq(v["State"], "pending")
eq(v["CidrBlock"], "10.0.0.0/16")
eq(len(V), 21)
v = ec2.describe_vpcs(VpcIds=[V])["Vpcs"][0]
eq(v["State"], "available")
eq({t["Key"]: t["Value"] for t in v["Tags"]}, {"Name": "one", "team": "a&<b>"})
eq(v["IsDefault"], False)
eq(v["CidrBlockAssociationSet"][0]["CidrBlockState"], {"State": "associated"})
ec2.get_waiter("vpc_available").wait(VpcIds=[V])
V2 = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
for b, code in (
    ("10.0.0.0/8", "InvalidVpc.Range"),
    ("10.0.0.0/29", "InvalidVpc.Range"),
    ("x", "InvalidParameterValue"),
):
    err(code, ec2.create_vpc, CidrBlock=b)
err("MissingParameter", ec2.create_vpc)
err(
    "InvalidParameterValue",
    ec2.create_vpc,
    CidrBlock="10.0.0.0/16",
    TagSpecifications=T("subnet", a="b"),
    text="taggable",
)
err(
    "InvalidParameterValue",
    ec2.create_vpc,
    CidrBlock="10.0.0.0/16",
    TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": "aws:x", "Value": "y"}]}],
    text="reserved",
)
err(
    "InvalidParameterValue",
    ec2.create_vpc,
    CidrBlock="10.0.0.0/16",
    TagSpecifications=[{"ResourceType": "vpc", "Tags": []}],
    text="at least one",
)
err(
    "TagLimitExceeded",
    ec2.create_vpc,
    CidrBlock="10.0.0.0/16",
    TagSpecifications=T("vpc", **{f"k{i}": "" for i in range(51)}),
)
eq(len(ec2.describe_vpcs()["Vpcs"]), 2)
err(
    "InvalidVpcID.NotFound",
    ec2.describe_vpcs,
    VpcIds=["vpc-0123456789abcdef0"],
    text="The vpc ID 'vpc-0123456789abcdef0' does not exist",
)
err("InvalidVpcID.Malformed", ec2.describe_vpcs, VpcIds=["foo"])
err("InvalidVpcID.NotFound", ec2.delete_vpc, VpcId="vpc-0123456789abcdef0")
for f, want in (
    (F(cidr="10.0.*"), [V]),
    (F(tag_key="Na?e"), [V]),
    (F(state="available", cidr=["10.1.0.0/16", "10.0.0.0/16"]), sorted([V, V2])),
    ([{"Name": "tag:team", "Values": ["a&*"]}], [V]),
    ([{"Name": "tag:team", "Values": []}], []),
    (F(vpc_id=V2), [V2]),
    (F(is_default="false"), sorted([V, V2])),
):
    eq(ids(ec2.describe_vpcs(Filters=f)["Vpcs"], "VpcId"), want)
err("InvalidParameterValue", ec2.describe_vpcs, Filters=F(color="x"), text="The filter 'color' is invalid")
for n in (4, 1001):
    err("InvalidParameterValue", ec2.describe_vpcs, MaxResults=n)
err("InvalidNextToken", ec2.describe_vpcs, NextToken="%%%")
at = lambda a: ec2.describe_vpc_attribute(VpcId=V, Attribute=a)
eq(at("enableDnsSupport")["EnableDnsSupport"]["Value"], True)
eq(at("enableDnsHostnames")["EnableDnsHostnames"]["Value"], False)
ec2.modify_vpc_attribute(VpcId=V, EnableDnsHostnames={"Value": True})
eq(at("enableDnsHostnames")["EnableDnsHostnames"]["Value"], True)
err(
    "InvalidParameterCombination",
    ec2.modify_vpc_attribute,
    VpcId=V,
    EnableDnsHostnames={"Value": True},
    EnableDnsSupport={"Value": True},
)
eq(ec2.describe_dhcp_options()["DhcpOptions"][0]["DhcpOptionsId"], v["DhcpOptionsId"])
acl = ec2.describe_network_acls(Filters=F(vpc_id=V))["NetworkAcls"]
eq(len(acl), 1)
eq(acl[0]["IsDefault"], True)
eq(len(acl[0]["Entries"]), 4)

# --- blocks beside the first
add = lambda **kw: ec2.associate_vpc_cidr_block(VpcId=V, **kw)
drop = lambda a: ec2.disassociate_vpc_cidr_block(AssociationId=a["AssociationId"])
local = lambda: sorted(
    r.get("DestinationCidrBlock") or r["DestinationIpv6CidrBlock"]
    for r in ec2.describe_route_tables(Filters=F(vpc_id=V))["RouteTables"][0]["Routes"]
)
err("MissingParameter", ec2.associate_vpc_cidr_block, VpcId=V)
err("InvalidVpcID.NotFound", ec2.associate_vpc_cidr_block, VpcId="vpc-0123456789abcdef0", CidrBlock="10.8.0.0/16")
err("InvalidParameterCombination", add, CidrBlock="10.8.0.0/16", AmazonProvidedIpv6CidrBlock=True)
err("InvalidParameterValue", add, CidrBlock="x")
for b, text in (
    ("10.8.0.0/15", "is invalid"),
    ("10.8.0.0/29", "is invalid"),
    ("10.0.5.0/24", "overlaps"),
    ("192.168.0.0/16", "is restricted"),
    ("198.19.0.0/16", "is restricted"),
):
    err("InvalidVpc.Range", add, CidrBlock=b, text=text)
a = add(CidrBlock="10.8.0.0/16")
eq(a["VpcId"], V)
a = a["CidrBlockAssociation"]
eq((a["CidrBlock"], a["CidrBlockState"]), ("10.8.0.0/16", {"State": "associating"}))
six = add(AmazonProvidedIpv6CidrBlock=True)["Ipv6CidrBlockAssociation"]
v = ec2.describe_vpcs(VpcIds=[V])["Vpcs"][0]
eq(v["CidrBlock"], "10.0.0.0/16")
eq([b["CidrBlock"] for b in v["CidrBlockAssociationSet"]], ["10.0.0.0/16", "10.8.0.0/16"])
eq([b["Ipv6CidrBlock"] for b in v["Ipv6CidrBlockAssociationSet"]], [six["Ipv6CidrBlock"]])
eq(local(), sorted(["10.0.0.0/16", "10.8.0.0/16", six["Ipv6CidrBlock"]]))
s = ec2.create_subnet(VpcId=V, CidrBlock="10.8.1.0/24")["Subnet"]["SubnetId"]
err("InvalidCidrBlock.InUse", drop, a)
ec2.delete_subnet(SubnetId=s)
more = [add(CidrBlock=b)["CidrBlockAssociation"] for b in ("10.9.0.0/16", "100.64.0.0/16", "192.0.2.0/24")]
err("CidrLimitExceeded", add, CidrBlock="10.10.0.0/16")
gone = drop(six)["Ipv6CidrBlockAssociation"]
eq(gone["Ipv6CidrBlockState"], {"State": "disassociating"})
for one in [a, *more]:
    drop(one)
err("InvalidVpcCidrBlockAssociationIdError.NotFound", drop, a)
err("OperationNotPermitted", drop, v["CidrBlockAssociationSet"][0])
eq(local(), ["10.0.0.0/16"])

# --- subnets
S = [
    ec2.create_subnet(
        VpcId=V,
        CidrBlock=f"10.0.{i}.0/24",
        AvailabilityZone="us-east-1" + "abc"[i % 3],
        TagSpecifications=T("subnet", n=str(i)),
    )["Subnet"]["SubnetId"]
    for i in range(6)
]
s = ec2.describe_subnets(SubnetIds=S[:1])["Subnets"][0]
eq(
    (s["AvailabilityZoneId"], s["AvailableIpAddressCount"], s["State"], s["MapPublicIpOnLaunch"], s["VpcId"]),
    ("use1-az1", 251, "available", False, V),
)
eq(s["SubnetArn"], f"arn:aws:ec2:us-east-1:123456789012:subnet/{S[0]}")
err("InvalidSubnet.Conflict", ec2.create_subnet, VpcId=V, CidrBlock="10.0.0.0/20")
err("InvalidSubnet.Range", ec2.create_subnet, VpcId=V, CidrBlock="10.3.0.0/24")
err("InvalidSubnet.Range", ec2.create_subnet, VpcId=V, CidrBlock="10.0.9.0/29")
err("InvalidVpcID.NotFound", ec2.create_subnet, VpcId="vpc-0123456789abcdef0", CidrBlock="10.0.9.0/28")
err(
    "InvalidParameterValue",
    ec2.create_subnet,
    VpcId=V,
    CidrBlock="10.0.9.0/28",
    AvailabilityZone="us-west-2a",
    text="us-east-1a, us-east-1b",
)
ec2.modify_subnet_attribute(SubnetId=S[0], MapPublicIpOnLaunch={"Value": True})
eq(ec2.describe_subnets(SubnetIds=S[:1])["Subnets"][0]["MapPublicIpOnLaunch"], True)
pages = list(ec2.get_paginator("describe_subnets").paginate(PaginationConfig={"PageSize": 5}))
eq([len(x["Subnets"]) for x in pages], [5, 1])
eq(sorted(s["SubnetId"] for x in pages for s in x["Subnets"]), sorted(S))
err("DependencyViolation", ec2.delete_vpc, VpcId=V, text=f"The vpc '{V}' has dependencies and cannot be deleted.")

# --- igw
I = ec2.create_internet_gateway(TagSpecifications=T("internet-gateway", a="b"))["InternetGateway"]["InternetGatewayId"]
ec2.attach_internet_gateway(InternetGatewayId=I, VpcId=V)
err("Resource.AlreadyAssociated", ec2.attach_internet_gateway, InternetGatewayId=I, VpcId=V)
I2 = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
err("InvalidParameterValue", ec2.attach_internet_gateway, InternetGatewayId=I2, VpcId=V)
eq(ids(ec2.describe_internet_gateways(Filters=F(attachment__vpc_id=V))["InternetGateways"], "InternetGatewayId"), [I])
err("DependencyViolation", ec2.delete_internet_gateway, InternetGatewayId=I)
err("Gateway.NotAttached", ec2.detach_internet_gateway, InternetGatewayId=I2, VpcId=V)
ec2.delete_internet_gateway(InternetGatewayId=I2)
err("InvalidInternetGatewayID.NotFound", ec2.delete_internet_gateway, InternetGatewayId=I2)
more = [ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"] for _ in range(5)]
err("InternetGatewayLimitExceeded", ec2.create_internet_gateway)
for m in more:
    ec2.delete_internet_gateway(InternetGatewayId=m)

# --- eip, nat
E = [ec2.allocate_address(Domain="vpc", TagSpecifications=T("elastic-ip", n=str(i)))["AllocationId"] for i in range(3)]
eq(len(ec2.describe_addresses(Filters=[{"Name": "tag:n", "Values": ["0", "1"]}])["Addresses"]), 2)
nat = lambda **kw: ec2.create_nat_gateway(**kw)["NatGateway"]
N = nat(SubnetId=S[0], AllocationId=E[0], ClientToken="t1", TagSpecifications=T("natgateway", a="b"))["NatGatewayId"]
eq(nat(SubnetId=S[0], AllocationId=E[0], ClientToken="t1", TagSpecifications=T("natgateway", a="b"))["NatGatewayId"], N)
err("IdempotentParameterMismatch", nat, SubnetId=S[1], AllocationId=E[1], ClientToken="t1")
err("MissingParameter", nat, SubnetId=S[0])
err("InvalidSubnetID.NotFound", nat, SubnetId="subnet-0123456789abcdef0", AllocationId=E[1])
st = lambda n: ec2.describe_nat_gateways(NatGatewayIds=[n])["NatGateways"][0]
eq(st(N)["State"], "pending")
bad = nat(SubnetId=S[1], AllocationId=E[0])["NatGatewayId"]
bad2 = nat(SubnetId=S[1], AllocationId="eipalloc-0123456789abcdef0")["NatGatewayId"]
s2 = ec2.create_subnet(VpcId=V2, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
bad3 = nat(SubnetId=s2, AllocationId=E[1])["NatGatewayId"]
RT = ec2.create_route_table(VpcId=V, ClientToken="r1", TagSpecifications=T("route-table", a="b"))["RouteTable"][
    "RouteTableId"
]
eq(
    ec2.create_route_table(VpcId=V, ClientToken="r1", TagSpecifications=T("route-table", a="b"))["RouteTable"][
        "RouteTableId"
    ],
    RT,
)
err("IdempotentParameterMismatch", ec2.create_route_table, VpcId=V2, ClientToken="r1")
err("InvalidNatGatewayID.NotFound", ec2.create_route, RouteTableId=RT, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=N)
advance(20)
eq(
    [(st(b)["State"], st(b)["FailureCode"]) for b in (bad, bad2, bad3)],
    [
        ("failed", "Resource.AlreadyAssociated"),
        ("failed", "InvalidAllocationID.NotFound"),
        ("failed", "Gateway.NotAttached"),
    ],
)
eq(st(N)["State"], "pending")
advance(90)
eq(st(N)["State"], "available")
a = st(N)["NatGatewayAddresses"][0]
eq((a["AllocationId"], a["PrivateIp"], a["Status"]), (E[0], "10.0.0.4", "succeeded"))
d = ec2.describe_addresses(AllocationIds=E[:1])["Addresses"][0]
eq(
    (d["PublicIp"], d["NetworkInterfaceId"], d["AssociationId"]),
    (a["PublicIp"], a["NetworkInterfaceId"], a["AssociationId"]),
)
err("AuthFailure", ec2.release_address, AllocationId=E[0])
err("InvalidAllocationID.NotFound", ec2.release_address, AllocationId="eipalloc-0123456789abcdef0")
err("DependencyViolation", ec2.delete_subnet, SubnetId=S[0])
err("DependencyViolation", ec2.detach_internet_gateway, InternetGatewayId=I, VpcId=V, text="mapped public address")
eq(
    ids(ec2.describe_nat_gateways(Filters=F(vpc_id=V, state=["pending", "available"]))["NatGateways"], "NatGatewayId"),
    [N],
)
err("NatGatewayNotFound", ec2.describe_nat_gateways, NatGatewayIds=["nat-0123456789abcdef0"])
eq(ec2.describe_subnets(SubnetIds=S[:1])["Subnets"][0]["AvailableIpAddressCount"], 250)
e = (
    ec2.describe_network_interfaces(Filters=F(interface_type="nat_gateway"))["NetworkInterfaces"]
    if 0
    else ec2.describe_network_interfaces(Filters=[{"Name": "interface-type", "Values": ["nat_gateway"]}])[
        "NetworkInterfaces"
    ]
)
eq(
    (len(e), e[0]["Status"], e[0]["RequesterManaged"], e[0]["Association"]["PublicIp"]),
    (1, "in-use", True, a["PublicIp"]),
)
err("InvalidParameterValue", ec2.delete_network_interface, NetworkInterfaceId=e[0]["NetworkInterfaceId"])

# --- routes
route = lambda **kw: ec2.create_route(RouteTableId=RT, **kw)
route(DestinationCidrBlock="0.0.0.0/0", NatGatewayId=N)
err("RouteAlreadyExists", route, DestinationCidrBlock="0.0.0.0/0", GatewayId=I)
err("InvalidGatewayID.NotFound", route, DestinationCidrBlock="1.0.0.0/8", GatewayId="igw-0123456789abcdef0")
err("InvalidParameterValue", route, DestinationCidrBlock="10.0.0.0/24", GatewayId=I)
err("InvalidParameterValue", route, DestinationCidrBlock="zzz", GatewayId=I)
err(
    "InvalidRouteTableID.NotFound",
    ec2.create_route,
    RouteTableId="rtb-0123456789abcdef0",
    DestinationCidrBlock="0.0.0.0/0",
    GatewayId=I,
)
ec2.replace_route(RouteTableId=RT, DestinationCidrBlock="0.0.0.0/0", GatewayId=I)
rt = lambda: ec2.describe_route_tables(RouteTableIds=[RT])["RouteTables"][0]
eq(
    [(r["GatewayId"], r["State"], r["Origin"]) for r in rt()["Routes"]],
    [("local", "active", "CreateRouteTable"), (I, "active", "CreateRoute")],
)
err("InvalidParameterValue", ec2.replace_route, RouteTableId=RT, DestinationCidrBlock="9.0.0.0/8", GatewayId=I)
err("InvalidRoute.NotFound", ec2.delete_route, RouteTableId=RT, DestinationCidrBlock="9.0.0.0/8")
err("InvalidParameterValue", ec2.delete_route, RouteTableId=RT, DestinationCidrBlock="10.0.0.0/16")
route(DestinationCidrBlock="9.0.0.0/8", NatGatewayId=N)
ec2.delete_route(RouteTableId=RT, DestinationCidrBlock="9.0.0.0/8")
route(DestinationIpv6CidrBlock="::/0", GatewayId=I)
A = ec2.associate_route_table(RouteTableId=RT, SubnetId=S[0])["AssociationId"]
eq(ec2.associate_route_table(RouteTableId=RT, SubnetId=S[0])["AssociationId"], A)
RT2 = ec2.create_route_table(VpcId=V)["RouteTable"]["RouteTableId"]
err("Resource.AlreadyAssociated", ec2.associate_route_table, RouteTableId=RT2, SubnetId=S[0])
err("InvalidParameterValue", ec2.associate_route_table, RouteTableId=RT, SubnetId=s2)
err("DependencyViolation", ec2.delete_route_table, RouteTableId=RT)
A = ec2.replace_route_table_association(AssociationId=A, RouteTableId=RT2)["NewAssociationId"]
eq(
    [
        x["SubnetId"]
        for x in ec2.describe_route_tables(Filters=F(association__subnet_id=S[0]))["RouteTables"][0]["Associations"]
    ],
    [S[0]],
)
ec2.disassociate_route_table(AssociationId=A)
err("InvalidAssociationID.NotFound", ec2.disassociate_route_table, AssociationId=A)
main = ec2.describe_route_tables(Filters=F(vpc_id=V, association__main="true"))["RouteTables"]
eq(len(main), 1)
err(
    "InvalidParameterValue",
    ec2.disassociate_route_table,
    AssociationId=main[0]["Associations"][0]["RouteTableAssociationId"],
)
err("DependencyViolation", ec2.delete_route_table, RouteTableId=main[0]["RouteTableId"])
ec2.associate_route_table(RouteTableId=RT2, SubnetId=S[0])
err("InvalidParameterValue", ec2.describe_route_tables, MaxResults=101)
eq(len(list(ec2.get_paginator("describe_route_tables").paginate())), 1)

# --- groups
G = ec2.create_security_group(
    GroupName="web", Description="web tier", VpcId=V, TagSpecifications=T("security-group", a="b")
)["GroupId"]
err("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="web", Description="x", VpcId=V)
err("VPCIdNotSpecified", ec2.create_security_group, GroupName="web", Description="x")
err("InvalidParameterValue", ec2.create_security_group, GroupName="w", Description="<x>", VpcId=V)
G2 = ec2.create_security_group(GroupName="web", Description="x", VpcId=V2)["GroupId"]
G3 = ec2.create_security_group(GroupName="db", Description="x", VpcId=V)["GroupId"]
g = lambda i: ec2.describe_security_groups(GroupIds=[i])["SecurityGroups"][0]
eq(
    g(G)["IpPermissionsEgress"],
    [
        {
            "IpProtocol": "-1",
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        }
    ],
)
eq(g(G)["IpPermissions"], [])
D = ec2.describe_security_groups(Filters=F(vpc_id=V, group_name="default"))["SecurityGroups"][0]
eq(D["IpPermissions"][0]["UserIdGroupPairs"], [{"UserId": "123456789012", "GroupId": D["GroupId"]}])
err("CannotDelete", ec2.delete_security_group, GroupId=D["GroupId"])
P = [
    {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "in"}, {"CidrIp": "10.9.0.0/16"}],
        "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
        "UserIdGroupPairs": [{"GroupId": G3, "Description": "db"}],
    },
    {"IpProtocol": "17", "FromPort": 53, "ToPort": 53, "PrefixListIds": [{"PrefixListId": "pl-63a5400a"}]},
]
r = ec2.authorize_security_group_ingress(GroupId=G, IpPermissions=P, TagSpecifications=T("security-group-rule", n="1"))
eq(r["Return"], True)
R = r["SecurityGroupRules"]
eq(len(R), 5)
eq(R[0]["Description"], "in")
eq(R[0]["Tags"], [{"Key": "n", "Value": "1"}])
perms = {x["IpProtocol"]: x for x in g(G)["IpPermissions"]}
eq(sorted(perms), ["tcp", "udp"])
eq(perms["tcp"]["UserIdGroupPairs"], [{"UserId": "123456789012", "GroupId": G3, "Description": "db"}])
eq(sorted(perms["tcp"]["IpRanges"], key=lambda x: x["CidrIp"]), P[0]["IpRanges"])
err(
    "InvalidPermission.Duplicate",
    ec2.authorize_security_group_ingress,
    GroupId=G,
    IpPermissions=P[1:],
    text="peer: pl-63a5400a, UDP, from port: 53, to port: 53, ALLOW",
)
tcp = lambda port=1, cidr="1.2.3.4/32", **kw: [
    {"IpProtocol": "tcp", "FromPort": port, "ToPort": kw.get("to", port), "IpRanges": [{"CidrIp": cidr}]}
]
for pp in (
    tcp(cidr="10.0.0.1/8"),
    tcp(70000),
    tcp(5, to=4),
    [{"IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    [{"IpProtocol": "bogus", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    tcp() + tcp(),
):
    err("InvalidParameterValue", ec2.authorize_security_group_ingress, GroupId=G, IpPermissions=pp)
pair = lambda x: [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": x}]}]
err(
    "InvalidGroup.NotFound", ec2.authorize_security_group_ingress, GroupId=G, IpPermissions=pair("sg-0123456789abcdef0")
)
err(
    "InvalidGroup.NotFound",
    ec2.authorize_security_group_ingress,
    GroupId=G,
    IpPermissions=pair(G2),
    text="different networks",
)
err(
    "InvalidPrefixListId.NotFound",
    ec2.authorize_security_group_ingress,
    GroupId=G,
    IpPermissions=[{"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-00000000"}]}],
)
err(
    "RulesPerSecurityGroupLimitExceeded",
    ec2.authorize_security_group_ingress,
    GroupId=G,
    IpPermissions=[
        {
            "IpProtocol": "tcp",
            "FromPort": 1,
            "ToPort": 1,
            "IpRanges": [{"CidrIp": f"10.0.{i}.0/24"} for i in range(250)],
        }
    ],
)
rules = ec2.describe_security_group_rules(Filters=F(group_id=G))["SecurityGroupRules"]
eq(len(rules), 6)
eq(sorted(x["IsEgress"] for x in rules), [False] * 5 + [True])
eq(next(x for x in rules if x["IsEgress"]).get("FromPort"), -1)
err("InvalidParameterValue", ec2.describe_security_group_rules, Filters=F(vpc_id=V))
err("DependencyViolation", ec2.delete_security_group, GroupId=G3, text="has a dependent object")
ec2.update_security_group_rule_descriptions_ingress(
    GroupId=G,
    IpPermissions=[
        {
            "IpProtocol": "tcp",
            "FromPort": 443,
            "ToPort": 443,
            "IpRanges": [{"CidrIp": "10.9.0.0/16", "Description": "new"}],
        }
    ],
)
ec2.update_security_group_rule_descriptions_ingress(
    GroupId=G,
    SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": R[0]["SecurityGroupRuleId"], "Description": "two"}],
)
eq(
    sorted(x.get("Description") for x in {x["IpProtocol"]: x for x in g(G)["IpPermissions"]}["tcp"]["IpRanges"]),
    ["new", "two"],
)
err("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=G, IpPermissions=tcp(99))
err("InvalidPermission.NotFound", ec2.update_security_group_rule_descriptions_egress, GroupId=G, IpPermissions=tcp(99))
err(
    "InvalidSecurityGroupRuleId.NotFound",
    ec2.revoke_security_group_ingress,
    GroupId=G,
    SecurityGroupRuleIds=["sgr-0123456789abcdef0"],
)
ec2.revoke_security_group_ingress(GroupId=G, SecurityGroupRuleIds=[R[0]["SecurityGroupRuleId"]])
ec2.revoke_security_group_ingress(GroupId=G, IpPermissions=[{**P[0], "IpRanges": P[0]["IpRanges"][1:]}])
ec2.revoke_security_group_egress(GroupId=G, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}])
eq(g(G)["IpPermissionsEgress"], [])
ec2.authorize_security_group_egress(GroupId=G, IpPermissions=tcp(443))
eq(
    (
        ids(
            ec2.describe_security_groups(Filters=F(egress__ip_permission__from_port="443"))["SecurityGroups"], "GroupId"
        )
        if 0
        else ids(
            ec2.describe_security_groups(Filters=[{"Name": "egress.ip-permission.from-port", "Values": ["443"]}])[
                "SecurityGroups"
            ],
            "GroupId",
        )
    ),
    [G],
)
ec2.delete_security_group(GroupId=G3)
err("InvalidGroup.NotFound", ec2.delete_security_group, GroupId=G3)
err("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[G3])

# --- endpoints
sv = ec2.describe_vpc_endpoint_services(ServiceNames=["com.amazonaws.us-east-1.s3"])
eq(sv["ServiceNames"], ["com.amazonaws.us-east-1.s3"])
eq({x["ServiceType"][0]["ServiceType"] for x in sv["ServiceDetails"]}, {"Gateway", "Interface"})
eq(
    ec2.describe_prefix_lists(Filters=F(prefix_list_name="com.amazonaws.us-east-1.s3"))["PrefixLists"][0][
        "PrefixListId"
    ],
    "pl-63a5400a",
)
pol = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]}
)
ep = lambda **kw: ec2.create_vpc_endpoint(VpcId=V, **kw)["VpcEndpoint"]
gw = ep(
    ServiceName="com.amazonaws.us-east-1.s3",
    RouteTableIds=[RT],
    PolicyDocument=pol,
    ClientToken="e1",
    TagSpecifications=T("vpc-endpoint", a="b"),
)
GW = gw["VpcEndpointId"]
eq((gw["State"], gw["VpcEndpointType"], gw["RouteTableIds"], gw["PolicyDocument"]), ("available", "Gateway", [RT], pol))
eq(
    ep(
        ServiceName="com.amazonaws.us-east-1.s3",
        RouteTableIds=[RT],
        PolicyDocument=pol,
        ClientToken="e1",
        TagSpecifications=T("vpc-endpoint", a="b"),
    )["VpcEndpointId"],
    GW,
)
eq([r["GatewayId"] for r in rt()["Routes"] if r.get("DestinationPrefixListId")], [GW])
err("InvalidParameterValue", ec2.delete_route, RouteTableId=RT, DestinationPrefixListId="pl-63a5400a")
err("RouteAlreadyExists", ep, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[RT])
err("InvalidServiceName", ep, ServiceName="com.amazonaws.us-east-1.nope")
err("InvalidParameter", ep, ServiceName="com.amazonaws.us-east-1.ec2")
err("InvalidPolicyDocument", ep, ServiceName="com.amazonaws.us-east-1.s3", PolicyDocument="{")
ec2.modify_vpc_endpoint(VpcEndpointId=GW, AddRouteTableIds=[RT2], RemoveRouteTableIds=[RT], ResetPolicy=True)
eq(ec2.describe_vpc_endpoints(VpcEndpointIds=[GW])["VpcEndpoints"][0]["RouteTableIds"], [RT2])
eq([r for r in rt()["Routes"] if r.get("DestinationPrefixListId")], [])
kw = dict(
    VpcEndpointType="Interface",
    ServiceName="com.amazonaws.us-east-1.ecr.api",
    SubnetIds=S[:2],
    SecurityGroupIds=[G],
    PrivateDnsEnabled=True,
)
ie = ep(**kw)
IE = ie["VpcEndpointId"]
eq(
    (ie["State"], len(ie["NetworkInterfaceIds"]), ie["Groups"], ie["PrivateDnsEnabled"]),
    ("pending", 2, [{"GroupId": G, "GroupName": "web"}], True),
)
eq("api.ecr.us-east-1.amazonaws.com" in [x["DnsName"] for x in ie["DnsEntries"]], True)
err("InvalidParameter", ep, **kw, text="conflicting DNS domain")
err("DuplicateSubnetsInSameZone", ep, **{**kw, "ServiceName": "com.amazonaws.us-east-1.sts", "SubnetIds": [S[0], S[3]]})
err(
    "InvalidParameter",
    ec2.create_vpc_endpoint,
    VpcId=V2,
    VpcEndpointType="Interface",
    ServiceName="com.amazonaws.us-east-1.sts",
    text="enableDnsHostnames",
)
err(
    "InvalidSubnetID.NotFound",
    ep,
    **{**kw, "ServiceName": "com.amazonaws.us-east-1.sts", "SubnetIds": ["subnet-0123456789abcdef0"]},
)
advance(100)
eq(
    ec2.describe_vpc_endpoints(Filters=F(vpc_id=V, vpc_endpoint_type="Interface"))["VpcEndpoints"][0]["State"],
    "available",
)
err("DependencyViolation", ec2.delete_security_group, GroupId=G)
err("DependencyViolation", ec2.delete_subnet, SubnetId=S[1])
G4 = ec2.create_security_group(GroupName="ep", Description="x", VpcId=V)["GroupId"]
ec2.modify_vpc_endpoint(
    VpcEndpointId=IE,
    AddSubnetIds=[S[2]],
    RemoveSubnetIds=[S[1]],
    AddSecurityGroupIds=[G4],
    RemoveSecurityGroupIds=[G],
    PrivateDnsEnabled=False,
)
ie = ec2.describe_vpc_endpoints(VpcEndpointIds=[IE])["VpcEndpoints"][0]
eq(
    (sorted(ie["SubnetIds"]), [x["GroupId"] for x in ie["Groups"]], ie["PrivateDnsEnabled"]),
    (sorted([S[0], S[2]]), [G4], False),
)
# The endpoint's interface stays in the former subnet for a while.
err("DependencyViolation", ec2.delete_subnet, SubnetId=S[1])
advance(61)
eq(
    {
        x["SubnetId"]
        for x in ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [G4]}])["NetworkInterfaces"]
    },
    {S[0], S[2]},
)
ec2.delete_security_group(GroupId=G)
err("InvalidVpcEndpointId.NotFound", ec2.describe_vpc_endpoints, VpcEndpointIds=["vpce-0123456789abcdef0"])
eq(
    ec2.delete_vpc_endpoints(VpcEndpointIds=[GW, "vpce-0123456789abcdef0"])["Unsuccessful"][0]["Error"]["Code"],
    "InvalidVpcEndpointId.NotFound",
)
ec2.delete_vpc_endpoints(VpcEndpointIds=[IE])
eq(ec2.describe_vpc_endpoints()["VpcEndpoints"][0]["State"], "deleting")
err("DependencyViolation", ec2.delete_security_group, GroupId=G4)
advance(61)
eq(ec2.describe_vpc_endpoints()["VpcEndpoints"], [])
ec2.delete_security_group(GroupId=G4)

# --- eni
eni = ec2.create_network_interface(
    SubnetId=S[5], Description="aws-K8S-i-1", ClientToken="n1", TagSpecifications=T("network-interface", owner="cni")
)["NetworkInterface"]
eq(
    (eni["Status"], eni["Groups"][0]["GroupId"], eni["PrivateIpAddress"], eni["TagSet"]),
    ("available", D["GroupId"], "10.0.5.4", [{"Key": "owner", "Value": "cni"}]),
)
err("InvalidIPAddress.InUse", ec2.create_network_interface, SubnetId=S[5], PrivateIpAddress="10.0.5.4")
err(
    "InvalidParameterCombination",
    ec2.describe_network_interfaces,
    NetworkInterfaceIds=[eni["NetworkInterfaceId"]],
    MaxResults=10,
)
eq(len(ec2.describe_network_interfaces(Filters=F(description="aws-K8S-*", status="available"))["NetworkInterfaces"]), 1)
err("DependencyViolation", ec2.delete_subnet, SubnetId=S[5])
ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
err("InvalidNetworkInterfaceID.NotFound", ec2.delete_network_interface, NetworkInterfaceId=eni["NetworkInterfaceId"])

# --- flow logs
iam = client("iam")
trust = lambda s: json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": s}, "Action": "sts:AssumeRole"}],
    }
)
FR = iam.create_role(RoleName="flow", AssumeRolePolicyDocument=trust("vpc-flow-logs.amazonaws.com"))["Role"]["Arn"]
fl = lambda **kw: ec2.create_flow_logs(
    **{
        **dict(
            ResourceIds=[V],
            ResourceType="VPC",
            TrafficType="ALL",
            LogGroupName="/x/flow",
            DeliverLogsPermissionArn=FR,
            MaxAggregationInterval=60,
            TagSpecifications=T("vpc-flow-log", a="b"),
        ),
        **kw,
    }
)
err("InvalidParameter", fl, DeliverLogsPermissionArn=ROLE, text="Unable to assume given IAM role")
err("InvalidParameter", fl, DeliverLogsPermissionArn="")
FL = fl(ClientToken="f")["FlowLogIds"][0]
eq(fl(ClientToken="f")["FlowLogIds"], [FL])
err("IdempotentParameterMismatch", fl, ClientToken="f", TrafficType="REJECT")
err("FlowLogAlreadyExists", fl)
eq(fl(ResourceIds=["vpc-0123456789abcdef0"])["Unsuccessful"][0]["Error"]["Code"], "InvalidVpcID.NotFound")
x = ec2.describe_flow_logs(Filter=F(resource_id=V))["FlowLogs"][0]
eq(
    (x["FlowLogStatus"], x["LogGroupName"], x["MaxAggregationInterval"], x["Tags"]),
    ("ACTIVE", "/x/flow", 60, [{"Key": "a", "Value": "b"}]),
)
ec2.delete_flow_logs(FlowLogIds=[FL])
eq(ec2.describe_flow_logs()["FlowLogs"], [])
err("InvalidFlowLogId.NotFound", ec2.delete_flow_logs, FlowLogIds=[FL])

# --- launch templates
data = {
    "BlockDeviceMappings": [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {
                "Encrypted": True,
                "VolumeType": "gp3",
                "VolumeSize": 20,
                "DeleteOnTermination": True,
                "KmsKeyId": "arn:aws:kms:us-east-1:1:key/x",
                "Throughput": 125,
                "Iops": 3000,
            },
        },
        {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 50}},
    ],
    "MetadataOptions": {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "disabled",
    },
    "TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]},
        {"ResourceType": "volume", "Tags": [{"Key": "c", "Value": "d"}]},
    ],
    "SecurityGroupIds": [D["GroupId"]],
    "UserData": "W3NldHRpbmdzXQo=",
    "Monitoring": {"Enabled": True},
    "ImageId": "resolve:ssm:/x",
    "EbsOptimized": True,
    "InstanceType": "m6i.large",
    "NetworkInterfaces": [
        {
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": False,
            "Groups": [D["GroupId"]],
            "PrivateIpAddresses": [{"Primary": True, "PrivateIpAddress": "10.0.0.9"}],
        }
    ],
    "LicenseSpecifications": [{"LicenseConfigurationArn": "arn:x"}],
    "InstanceRequirements": {
        "VCpuCount": {"Min": 1, "Max": 2},
        "MemoryMiB": {"Min": 1},
        "CpuManufacturers": ["intel"],
        "AcceleratorTypes": ["gpu"],
    },
    "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 2},
    "Placement": {"Tenancy": "default"},
    "CapacityReservationSpecification": {"CapacityReservationPreference": "none"},
    "MaintenanceOptions": {"AutoRecovery": "default"},
    "PrivateDnsNameOptions": {"HostnameType": "ip-name"},
}
lt = ec2.create_launch_template(
    LaunchTemplateName="t/one",
    LaunchTemplateData=data,
    ClientToken="l1",
    VersionDescription="first",
    TagSpecifications=T("launch-template", a="b"),
)["LaunchTemplate"]
LT = lt["LaunchTemplateId"]
eq(
    (lt["DefaultVersionNumber"], lt["LatestVersionNumber"], lt["Tags"], lt["CreatedBy"]),
    (1, 1, [{"Key": "a", "Value": "b"}], me["Arn"]),
)
eq(
    ec2.create_launch_template(
        LaunchTemplateName="t/one",
        LaunchTemplateData=data,
        ClientToken="l1",
        VersionDescription="first",
        TagSpecifications=T("launch-template", a="b"),
    )["LaunchTemplate"]["LaunchTemplateId"],
    LT,
)
err(
    "InvalidLaunchTemplateName.AlreadyExistsException",
    ec2.create_launch_template,
    LaunchTemplateName="t/one",
    LaunchTemplateData=data,
)
err(
    "InvalidLaunchTemplateName.MalformedException",
    ec2.create_launch_template,
    LaunchTemplateName="a b c",
    LaunchTemplateData=data,
)
err(
    "InvalidUserData.Malformed",
    ec2.create_launch_template,
    LaunchTemplateName="abc",
    LaunchTemplateData={"UserData": "$$$"},
)
err(
    "InvalidParameterValue",
    ec2.create_launch_template,
    LaunchTemplateName="abc",
    LaunchTemplateData={"MetadataOptions": {"HttpPutResponseHopLimit": 65}},
)
vs = ec2.describe_launch_template_versions(LaunchTemplateId=LT)["LaunchTemplateVersions"]
eq(vs[0]["LaunchTemplateData"], data)
eq((vs[0]["VersionDescription"], vs[0]["DefaultVersion"]), ("first", True))
v2 = ec2.create_launch_template_version(
    LaunchTemplateName="t/one",
    SourceVersion="$Latest",
    ClientToken="l2",
    LaunchTemplateData={"InstanceType": "m7i.large"},
)["LaunchTemplateVersion"]
eq(v2["LaunchTemplateData"], {**data, "InstanceType": "m7i.large"})
eq(v2["VersionNumber"], 2)
eq(
    ec2.create_launch_template_version(
        LaunchTemplateName="t/one",
        SourceVersion="$Latest",
        ClientToken="l2",
        LaunchTemplateData={"InstanceType": "m7i.large"},
    )["LaunchTemplateVersion"]["VersionNumber"],
    2,
)
eq(
    ec2.create_launch_template_version(LaunchTemplateId=LT, LaunchTemplateData={"InstanceType": "m8g.large"})[
        "LaunchTemplateVersion"
    ]["LaunchTemplateData"],
    {"InstanceType": "m8g.large"},
)
vv = lambda **kw: [x["VersionNumber"] for x in ec2.describe_launch_template_versions(**kw)["LaunchTemplateVersions"]]
eq(vv(LaunchTemplateId=LT), [3, 2, 1])
eq(vv(LaunchTemplateId=LT, Versions=["$Default", "2"]), [2, 1])
eq(vv(Versions=["$Latest", "$Default"]), [3, 1])
eq(vv(LaunchTemplateId=LT, MinVersion="2"), [3, 2])
err("InvalidLaunchTemplateId.VersionNotFound", vv, LaunchTemplateId=LT, Versions=["9"])
err("InvalidParameterCombination", vv, Versions=["1"])
err("InvalidParameterValue", vv, LaunchTemplateId=LT, MaxResults=201)
eq(
    [
        x["VersionNumber"]
        for pg in ec2.get_paginator("describe_launch_template_versions").paginate(
            LaunchTemplateId=LT, PaginationConfig={"PageSize": 1}
        )
        for x in pg["LaunchTemplateVersions"]
    ],
    [3, 2, 1],
)
eq(ec2.modify_launch_template(LaunchTemplateId=LT, DefaultVersion="3")["LaunchTemplate"]["DefaultVersionNumber"], 3)
r = ec2.delete_launch_template_versions(LaunchTemplateId=LT, Versions=["2", "3", "9"])
eq([x["VersionNumber"] for x in r["SuccessfullyDeletedLaunchTemplateVersions"]], [2])
eq(
    [x["ResponseError"]["Code"] for x in r["UnsuccessfullyDeletedLaunchTemplateVersions"]],
    ["unexpectedError", "launchTemplateVersionDoesNotExist"],
)
eq(ec2.describe_launch_templates(LaunchTemplateNames=["t/one"])["LaunchTemplates"][0]["LatestVersionNumber"], 3)
err("InvalidLaunchTemplateName.NotFoundException", ec2.describe_launch_templates, LaunchTemplateNames=["zzz"])
err("InvalidLaunchTemplateId.NotFound", ec2.delete_launch_template, LaunchTemplateId="lt-0123456789abcdef0")
err("InvalidParameterValue", ec2.describe_launch_templates, MaxResults=201)
eq(ec2.delete_launch_template(LaunchTemplateName="t/one")["LaunchTemplate"]["LaunchTemplateId"], LT)

# --- tags
ec2.create_tags(
    Resources=[V, S[0], I, E[0], N, RT, main[0]["RouteTableId"], D["GroupId"]],
    Tags=[{"Key": "k", "Value": "v"}, {"Key": "e", "Value": ""}],
)
tg = lambda **kw: ec2.describe_tags(Filters=F(**kw))["Tags"]
eq(
    sorted(x["ResourceType"] for x in tg(key="k")),
    ["elastic-ip", "internet-gateway", "natgateway", "route-table", "route-table", "security-group", "subnet", "vpc"],
)
eq(len(tg(resource_id=V)), 4)
eq(len(ec2.describe_vpcs(Filters=[{"Name": "tag:e", "Values": [""]}])["Vpcs"]), 1)
eq(
    [
        len(x["Tags"])
        for x in ec2.get_paginator("describe_tags").paginate(Filters=F(key="k"), PaginationConfig={"PageSize": 5})
    ],
    [5, 3],
)
ec2.delete_tags(Resources=[V], Tags=[{"Key": "k", "Value": "other"}, {"Key": "e", "Value": ""}, {"Key": "team"}])
eq(sorted(x["Key"] for x in tg(resource_id=V)), ["Name", "k"])
err("InvalidParameterValue", ec2.create_tags, Resources=[V], Tags=[{"Key": "aws:x", "Value": "y"}])
err("TagLimitExceeded", ec2.create_tags, Resources=[V], Tags=[{"Key": f"k{i}", "Value": "y"} for i in range(49)])
err("InvalidVpcID.NotFound", ec2.create_tags, Resources=["vpc-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "y"}])
err("InvalidID", ec2.create_tags, Resources=["zzz-1"], Tags=[{"Key": "a", "Value": "y"}])
ec2.delete_tags(Resources=[V])
eq(tg(resource_id=V), [])

# --- isolation
eq(client("ec2", "eu-west-1").describe_vpcs()["Vpcs"], [])
eq(client("ec2", key="210987654321").describe_vpcs()["Vpcs"], [])
eq(len(client("ec2", key=c["AccessKeyId"]).describe_vpcs()["Vpcs"]), 2)

# --- teardown
route(DestinationCidrBlock="9.0.0.0/8", NatGatewayId=N)
ec2.delete_nat_gateway(NatGatewayId=N)
eq(st(N)["State"], "deleting")
eq([r["State"] for r in rt()["Routes"] if r.get("NatGatewayId")], ["blackhole"])
err("AuthFailure", ec2.release_address, AllocationId=E[0])
advance(61)
eq(st(N)["State"], "deleted")
for e in E:
    ec2.release_address(AllocationId=e)
advance(3700)
eq(ec2.describe_nat_gateways()["NatGateways"], [])
ec2.detach_internet_gateway(InternetGatewayId=I, VpcId=V)
eq([r["State"] for r in rt()["Routes"] if r.get("GatewayId") == I], ["blackhole"] * 2)
ec2.delete_internet_gateway(InternetGatewayId=I)
for s in S + [s2]:
    ec2.delete_subnet(SubnetId=s)
err("InvalidSubnetID.NotFound", ec2.delete_subnet, SubnetId=S[0])
err("DependencyViolation", ec2.delete_vpc, VpcId=V)
for x in (RT, RT2):
    ec2.delete_route_table(RouteTableId=x)
ec2.delete_vpc(VpcId=V)
err("DependencyViolation", ec2.delete_vpc, VpcId=V2)
ec2.delete_security_group(GroupId=G2)
ec2.delete_vpc(VpcId=V2)
eq(ec2.describe_vpcs()["Vpcs"], [])
eq(ec2.describe_security_groups()["SecurityGroups"], [])
eq(ec2.describe_route_tables()["RouteTables"], [])
eq(ec2.describe_tags()["Tags"], [])
iam.delete_role(RoleName="flow")
advance(90000)
eq(dump()["123456789012"]["regions"]["us-east-1"]["ec2"], {"resources": {}, "due": {}, "tokens": {}})
eq(sorted(strangers), [])
print(n_ok, "checks and", n_err, "errors as AWS has them")
